-- A queue itself.

-- configure: make it, or change its settings.
-- args: time, server, the settings as JSON that it has to have ('': none, it is new), then fields of `s` and values
-- answer: 0, or 1 where somebody else has changed them
writers.configure = function(keys, args)
  local known = call('HGET', keys[1], 'json')
  if args[3] ~= '' and not known then return NONE end
  if args[3] ~= '' and known ~= args[3] then return close(open(keys, args), 1) end
  local paused = call('HGET', keys[1], 'paused')
  call('HSET', keys[1], unpack(args, 4))
  call('HSETNX', keys[1], 'last', '0')
  call('HSETNX', keys[1], 'created', text(clock(args[1])))
  local q = open(keys, args)
  if paused == '1' and not q.paused then q.ready = call('ZCARD', q.b .. 'r') end  -- those who wait find what lay there
  q.due = next_due(q)
  return close(q, 0)
end

-- attend: somebody wants to be told of changes, up to this time (ms from now on).
-- args: time, server, ms
writers.attend = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  call('HSET', keys[1], 'attended', text(math.max(q.attended, q.now + tonumber(args[3]))))
  return close(q, 0)
end

local CONTENTS = { 'm', 'd', 'r', 'l', 'y', 'z', 'zx', 'x', 'g', 'o', 'c' }

-- purge: end every message.
-- args: time, server
-- answer: how many there were
writers.purge = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local amount = length(q)
  for _, member in ipairs(call('ZRANGE', q.b .. 'u', 0, -1)) do
    if call('HEXISTS', q.b .. 'm', member) == 1 then call('ZREM', q.b .. 'u', member) end
  end
  for _, key in ipairs(CONTENTS) do call('UNLINK', q.b .. key) end
  return close(q, amount)
end

-- destroy: take away all that there is of it.
writers.destroy = function(keys)
  local base = string.sub(keys[1], 1, -2)
  for _, key in ipairs(CONTENTS) do call('UNLINK', base .. key) end
  for _, key in ipairs({ 's', 'e', 'ex', 'u', 'dd', 'ddx', 'an', 'anx', 't', 'v', 'w', 'wx', 'away' }) do
    call('UNLINK', base .. key)
  end
  return 0
end

-- stale_arrivals: tokens of messages that arrived here before a time, for whoever knows whether they departed.
-- args: time, server, that time
verbs.stale_arrivals = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local found, all = {}, call('HGETALL', q.b .. 'w')
  for n = 1, #all, 2 do
    if tonumber(all[n + 1]) <= tonumber(args[3]) and #found < 1000 then found[#found + 1] = all[n] end
  end
  return found
end
