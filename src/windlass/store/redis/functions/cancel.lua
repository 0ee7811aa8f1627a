-- cancel: end a message.
-- args: time, server, member, '1' where it may be leased, what its life calls the end, outcome ('-' or '+' and the text)
-- answer: 0 done, 1 it is leased, 2 gone
writers.cancel = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member, outcome = args[3], optional(args[6])
  local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  if not raw then return close(q, 2) end
  local place = place_of(q, member, d)
  if place == LEASED and args[4] ~= '1' then return close(q, 1) end
  finish(q, member, read(raw, member), d, args[5], place, outcome, nil, outcome ~= nil)
  return close(q, 0)
end
