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
