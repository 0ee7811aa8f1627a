local CONTENTS = { 'm', 'd', 'r', 'l', 'y', 'z', 'zx', 'x', 'g', 'o', 'c' }

-- purge: end every message.
-- args: time, server, how long after the last one that named such a time (ms; 0: none is named)
-- answer: how many there were, -1 where that was too soon
writers.purge = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local apart = tonumber(args[3])
  if apart > 0 and q.now < tonumber(call('HGET', keys[1], 'purged') or '-inf') + apart then return close(q, -1) end
  local amount = length(q)
  for _, member in ipairs(call('ZRANGE', q.b .. 'u', 0, -1)) do
    if call('HEXISTS', q.b .. 'm', member) == 1 then call('ZREM', q.b .. 'u', member) end
  end
  for _, key in ipairs(CONTENTS) do call('UNLINK', q.b .. key) end
  if apart > 0 then call('HSET', keys[1], 'purged', text(q.now)) end
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
