-- The registry, what all queues share. Its one key is `PREFIX:{r}:s`; the others begin alike:
--
--   names  hash  name -> number       letters  hash  name -> name of its dead-letter queue
--   k      hash  API keys             ru       hash  runners
--   due    zset  number of a queue -> when something in it is due
--   gone   set   numbers of queues that are being deleted
--   s      hash  secret, version, next_queue, next_runner

local function changed(base)
  local version = call('HINCRBY', base .. 's', 'version', 1)
  call('SPUBLISH', base .. 'n', version)
  return version
end

local function registry(keys) return string.sub(keys[1], 1, -2) end

-- found: the secret, made of args[1] where there is none.
writers.found = function(keys, args)
  call('HSETNX', keys[1], 'secret', args[1])
  return call('HGET', keys[1], 'secret')
end

-- register: a queue's name, for number args[2] unless it has one. args: name, number, dead letter ('': none)
-- answer: its number, or 'noletter'
writers.register = function(keys, args)
  local base = registry(keys)
  local known = call('HGET', base .. 'names', args[1])
  if known then return known end
  if args[3] ~= '' and call('HEXISTS', base .. 'names', args[3]) == 0 then return 'noletter' end
  call('HSET', base .. 'names', args[1], args[2])
  if args[3] ~= '' then call('HSET', base .. 'letters', args[1], args[3]) end
  changed(base)
  return args[2]
end

-- readdress: a queue's dead letter is another one. args: name, dead letter ('': none)
-- answer: number of that, '', 'noletter' or 'none'
writers.readdress = function(keys, args)
  local base = registry(keys)
  if call('HEXISTS', base .. 'names', args[1]) == 0 then return 'none' end
  if args[2] == '' then
    call('HDEL', base .. 'letters', args[1])
    return ''
  end
  local number = call('HGET', base .. 'names', args[2])
  if not number then return 'noletter' end
  call('HSET', base .. 'letters', args[1], args[2])
  return number
end

-- unregister: a queue's name is free again. args: name
-- answer: {its number}, {'none'}, or {'used', by which queue}
writers.unregister = function(keys, args)
  local base = registry(keys)
  local number = call('HGET', base .. 'names', args[1])
  if not number then return { 'none' } end
  local letters = call('HGETALL', base .. 'letters')
  for n = 1, #letters, 2 do
    if letters[n + 1] == args[1] and letters[n] ~= args[1] then return { 'used', letters[n] } end
  end
  call('HDEL', base .. 'names', args[1])
  call('HDEL', base .. 'letters', args[1])
  call('SADD', base .. 'gone', number)
  call('ZREM', base .. 'due', number)
  changed(base)
  return { number }
end

-- keep: something in a hash of the registry. args: hash, field, value ('': take it away)
-- answer: 1 where it was new or, taken away, there
writers.keep = function(keys, args)
  local base = registry(keys)
  local result
  if args[3] == '' then
    result = call('HDEL', base .. args[1], args[2])
  else
    result = call('HSET', base .. args[1], args[2], args[3])
  end
  if args[4] ~= 'quietly' then changed(base) end
  return result
end

-- claim_due: queues in which something is due, for whoever asked; nobody else gets them for a while.
-- args: time, how many, for how long (ms)
-- answer: their numbers, and when the next is due ('': nothing is)
writers.claim_due = function(keys, args)
  local base, now = registry(keys), clock(args[1])
  local found = call('ZRANGEBYSCORE', base .. 'due', '-inf', text(now), 'LIMIT', 0, args[2])
  for _, number in ipairs(found) do call('ZADD', base .. 'due', text(now + tonumber(args[3])), number) end
  local following = call('ZRANGE', base .. 'due', 0, 0, 'WITHSCORES')
  return { found, following[2] or '' }
end

-- set_due: args: time, then numbers of queues and when something is due in each ('': never)
writers.set_due = function(keys, args)
  local base = registry(keys)
  for n = 2, #args, 2 do
    if args[n + 1] == '' then
      call('ZREM', base .. 'due', args[n])
    else
      call('ZADD', base .. 'due', args[n + 1], args[n])
    end
  end
  return 0
end

-- note_due: the same, where that is earlier than what is noted.
writers.note_due = function(keys, args)
  local base = registry(keys)
  for n = 2, #args, 2 do call('ZADD', base .. 'due', 'LT', args[n + 1], args[n]) end
  return 0
end
