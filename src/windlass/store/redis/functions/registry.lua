-- The registry, what all queues share. Its one key is `PREFIX:{r}:s`; the others begin alike:
--
--   names  hash  name -> number       letters  hash  name -> name of its dead-letter queue
--   k      hash  API keys             ru       hash  runners
--   due    zset  number of a queue -> when something in it is due
--   duev   hash  number of a queue -> which of all notes of `due` was its last
--   gone   set   numbers of queues that are being deleted
--   made   hash  number of a queue that is being made -> since when
--   claimed  set  numbers of queues with claims, or with ends that somebody has to be told of
--   s      hash  secret, version, next_queue, next_runner; `beat`: when a server was last seen to be there

-- The version is a time, µs, and more than before: a registry that a failover or a power cut set back never comes to one
-- that it had when it held something else.
local function changed(base)
  local time, known = call('TIME'), tonumber(call('HGET', base .. 's', 'version') or '0')
  local version = text(math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), known + 1))
  call('HSET', base .. 's', 'version', version)
  call('SPUBLISH', base .. 'n', version)
  return version
end

local function registry(keys) return string.sub(keys[1], 1, -2) end

-- found: the secret, made of args[3] where there is none; who goes by another hears of it.
writers.found = function(keys, args)
  if call('HSETNX', keys[1], 'secret', args[3]) == 1 then changed(registry(keys)) end
  return call('HGET', keys[1], 'secret')
end

-- version: another one whenever something has changed; and the secret, '' for none.
verbs.version = function(keys)
  return { call('HGET', keys[1], 'version') or '0', call('HGET', keys[1], 'secret') or '' }
end

-- all: version, names, keys, runners and queues with claims.
verbs.all = function(keys)
  local base = registry(keys)
  return { call('HGET', keys[1], 'version') or '0', call('HGETALL', base .. 'names'), call('HGETALL', base .. 'k'),
           call('HGETALL', base .. 'ru'), call('SMEMBERS', base .. 'claimed'), call('SMEMBERS', base .. 'gone') }
end

-- lookup: a queue's number, '' for none. args: time, server, name
verbs.lookup = function(keys, args) return call('HGET', registry(keys) .. 'names', args[3]) or '' end

-- number: one that was never given out. args: time, server, of what
writers.number = function(keys, args) return call('HINCRBY', keys[1], args[3], 1) end

-- claimed: queues with claims.
verbs.claimed = function(keys) return call('SMEMBERS', registry(keys) .. 'claimed') end

-- mark_claimed: args: time, server, number
writers.mark_claimed = function(keys, args) return call('SADD', registry(keys) .. 'claimed', args[3]) end

-- buried: a queue is deleted for good. args: time, server, number
writers.buried = function(keys, args)
  call('SREM', registry(keys) .. 'claimed', args[3])
  call('HDEL', registry(keys) .. 'made', args[3])
  return call('SREM', registry(keys) .. 'gone', args[3])
end

-- turn: 1 for whoever does a piece of work now; for a while nobody else is told so. args: time, server, work, ms
writers.turn = function(keys, args)
  local now, field = clock(args[1]), 'turn:' .. args[3]
  if now < tonumber(call('HGET', keys[1], field) or '-inf') then return 0 end
  call('HSET', keys[1], field, text(now + tonumber(args[4])))
  return 1
end

-- settle: what all servers go by under a name: the first value, or this one.
-- args: time, server, name, value, 'anew': this one
writers.settle = function(keys, args)
  local field = 'settled:' .. args[3]
  call(args[5] == 'anew' and 'HSET' or 'HSETNX', keys[1], field, args[4])
  return call('HGET', keys[1], field)
end

-- tell: something for all other servers. args: time, server, topic, payload
writers.tell = function(keys, args)
  return call('SPUBLISH', registry(keys) .. 't', args[2] .. ' ' .. args[3] .. ' ' .. args[4])
end

-- runner: one as it is on record. args: time, server, number
verbs.runner = function(keys, args) return call('HGET', registry(keys) .. 'ru', args[3]) or '' end

-- claim_sweep: 1 for whoever is to look through all queues, for everybody, now. args: time, server, how often (ms)
writers.claim_sweep = function(keys, args)
  local now = clock(args[1])
  if now - tonumber(call('HGET', keys[1], 'swept') or '-inf') < tonumber(args[3]) then return 0 end
  call('HSET', keys[1], 'swept', text(now))
  return 1
end

-- make: a number for a queue that is being made. Until it is registered nobody else knows that there may be keys of it.
-- args: time, server, secret
-- answer: the number, 0 where this is not the installation with that secret
writers.make = function(keys, args)
  if call('HGET', keys[1], 'secret') ~= args[3] then return 0 end
  local number = call('HINCRBY', keys[1], 'next_queue', 1)
  call('HSET', registry(keys) .. 'made', number, text(clock(args[1])))
  return number
end

-- unmade: queues whose making began so long ago that whoever began it is gone: they are being deleted from now on.
-- args: time, server, how long ago (ms)
writers.unmade = function(keys, args)
  local base, all = registry(keys), call('HGETALL', registry(keys) .. 'made')
  for n = 1, #all, 2 do
    if tonumber(all[n + 1]) <= clock(args[1]) - tonumber(args[3]) then
      call('HDEL', base .. 'made', all[n])
      call('SADD', base .. 'gone', all[n])
    end
  end
  return 0
end

-- register: a queue's name, for a number unless it has one. args: time, server, name, number, dead letter ('': none)
-- answer: its number, 'noletter', or 'late' where it counts as unmade; and queues that are being deleted
writers.register = function(keys, args)
  local base = registry(keys)
  local known, deleted = call('HGET', base .. 'names', args[3]), call('SMEMBERS', base .. 'gone')
  if known then return { known, deleted } end
  if args[5] ~= '' and call('HEXISTS', base .. 'names', args[5]) == 0 then return { 'noletter', deleted } end
  if call('HDEL', base .. 'made', args[4]) == 0 then return { 'late', deleted } end
  call('HSET', base .. 'names', args[3], args[4])
  if args[5] ~= '' then call('HSET', base .. 'letters', args[3], args[5]) end
  changed(base)
  return { args[4], deleted }
end

-- readdress: a queue's dead letter is another one. args: time, server, name, dead letter ('': none)
-- answer: number of that, '', 'noletter' or 'none'
writers.readdress = function(keys, args)
  local base = registry(keys)
  if call('HEXISTS', base .. 'names', args[3]) == 0 then return 'none' end
  if args[4] == '' then
    call('HDEL', base .. 'letters', args[3])
    return ''
  end
  local number = call('HGET', base .. 'names', args[4])
  if not number then return 'noletter' end
  call('HSET', base .. 'letters', args[3], args[4])
  return number
end

-- unregister: a queue's name is free again. args: time, server, name
-- answer: {its number}, {'none'}, or {'used', by which queue}
writers.unregister = function(keys, args)
  local base = registry(keys)
  local number = call('HGET', base .. 'names', args[3])
  if not number then return { 'none' } end
  local letters = call('HGETALL', base .. 'letters')
  for n = 1, #letters, 2 do
    if letters[n + 1] == args[3] and letters[n] ~= args[3] then return { 'used', letters[n] } end
  end
  call('HDEL', base .. 'names', args[3])
  call('HDEL', base .. 'letters', args[3])
  call('SADD', base .. 'gone', number)
  call('ZREM', base .. 'due', number)
  call('HDEL', base .. 'duev', number)
  changed(base)
  return { number }
end

-- keep: something in a hash of the registry. args: time, server, hash, field, value ('': take it away), 'quietly':
--       nobody is told, 'known': nor is it put where there is none
-- answer: 1 where it was new or, taken away, there
writers.keep = function(keys, args)
  local base = registry(keys)
  local result
  if args[6] == 'known' and call('HEXISTS', base .. args[3], args[4]) == 0 then return 0 end
  if args[5] == '' then
    result = call('HDEL', base .. args[3], args[4])
  else
    result = call('HSET', base .. args[3], args[4], args[5])
  end
  if args[6] == '' then changed(base) end
  return result
end

-- beat: a server is there. args: time, server
-- answer: how long none was (ms)
writers.beat = function(keys, args)
  local now = clock(args[1])
  local last = tonumber(call('HGET', keys[1], 'beat') or text(now))
  call('HSET', keys[1], 'beat', text(math.max(now, last)))
  return now - last
end

-- claim_due: queues in which something is due, for whoever asked; nobody else gets them for a while.
-- args: time, server, how many, for how long (ms)
-- answer: their numbers, the last note of each, and when the next is due ('': nothing is)
writers.claim_due = function(keys, args)
  local base, now = registry(keys), clock(args[1])
  local found, noted = call('ZRANGEBYSCORE', base .. 'due', '-inf', text(now), 'LIMIT', 0, args[3]), {}
  for n, number in ipairs(found) do
    call('ZADD', base .. 'due', text(now + tonumber(args[4])), number)
    noted[n] = call('HGET', base .. 'duev', number) or '0'
  end
  return { found, noted, call('ZRANGE', base .. 'due', 0, 0, 'WITHSCORES')[2] or '', text(now) }
end

-- set_due: what came of claims. Where something was noted meanwhile, nothing is put off.
-- args: time, server, then for each: number, its last note then, when something is due ('': never)
-- answer: when the next is due
writers.set_due = function(keys, args)
  local base = registry(keys)
  for n = 3, #args, 3 do
    local number, noted, due = args[n], args[n + 1], args[n + 2]
    if (call('HGET', base .. 'duev', number) or '0') ~= noted then
      if due ~= '' then call('ZADD', base .. 'due', 'LT', due, number) end
    elseif due == '' then
      call('ZREM', base .. 'due', number)
      call('HDEL', base .. 'duev', number)
    else
      call('ZADD', base .. 'due', due, number)
    end
  end
  return call('ZRANGE', base .. 'due', 0, 0, 'WITHSCORES')[2] or ''
end

-- note_due: something is due in a queue, perhaps sooner than what is known.
-- args: time, server, then for each: number, when
writers.note_due = function(keys, args)
  local base = registry(keys)
  for n = 3, #args, 2 do
    call('ZADD', base .. 'due', 'LT', args[n + 1], args[n])
    call('HSET', base .. 'duev', args[n], call('HINCRBY', keys[1], 'notes', 1))  -- never what it was before
  end
  return 0
end
