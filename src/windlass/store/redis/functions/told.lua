-- told: this end is known where it has to be.
-- args: time, server, member, how long it is kept from now on (ms)
-- answer: 1, or 0 where no such end is here
writers.told = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member, untl = args[3], text(q.now + tonumber(args[4]))
  if call('ZREM', q.b .. 'u', member) == 1 then
    local d = delivery_of(q, member)
    if d and d[D.state] == DEAD then
      d[D.claim] = false
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'zx', untl, member)
    else
      call('ZADD', q.b .. 'ex', untl, member)
    end
    falls_due(q, tonumber(untl))
    return close(q, 1)
  end
  return close(q, 0)
end
