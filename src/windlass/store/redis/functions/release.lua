-- release: give a leased message back.
-- args: time, server, member, delivery, delay in ms, holder ('-' or '+' and the name), reason, '1' where it counts,
--       '1' where it was the last
-- answer: 0 done, 1 stale, 2 gone, 3 it was moved to another queue: see there
writers.release = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  if not raw then return close(q, call('HEXISTS', q.b .. 'away', member) == 1 and 3 or 2) end
  if not holds(q, d, tonumber(args[4]), optional(args[6])) then return close(q, 1) end
  end_delivery(q, member, read(raw, member), raw, d, 'given_back', tonumber(args[5]), args[7], args[8] == '1', args[9] == '1')
  return close(q, 0)
end
