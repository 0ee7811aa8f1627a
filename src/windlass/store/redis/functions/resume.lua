-- resume: confirmed claims have a whole lease from now on: nobody could extend them while no server was there.
-- args: time, server
writers.resume = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  for _, entry in ipairs(call('ZRANGEBYLEX', q.b .. 'c', '-', '+')) do
    local member = string.match(entry, '%z([^%z]*)$')
    local d = delivery_of(q, member)
    local due = q.now + q.lease
    if d and d[D.longest] > 0 then due = math.min(due, d[D.since] + d[D.longest]) end
    if d and d[D.state] == LEASED and not d[D.tentative] and d[D.due] < due then
      d[D.due] = due
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'l', text(d[D.due]), member)
      falls_due(q, d[D.due])
    end
  end
  return close(q, 0)
end
