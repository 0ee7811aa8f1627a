-- extend: let leases go on.
-- args: time, server, then for each: member, lease in ms ('': as it is), delivery, holder ('-' or '+' and the name),
--       the most that it may last since it began ('': no limit)
-- answer: when each ends (text), -1 stale, -2 gone, -3 it was moved to another queue: see there
writers.extend = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local answers = {}
  for n = 3, #args, 5 do
    local member, lease, delivery, holder = args[n], tonumber(args[n + 1]), tonumber(args[n + 2]), optional(args[n + 3])
    local longest, d = tonumber(args[n + 4]), delivery_of(q, member)
    local answer = -1
    if holds(q, d, delivery, holder) then
      local due = lease and q.now + lease or d[D.due]
      if longest then due = math.min(due, d[D.since] + longest) end
      d[D.due], d[D.tentative], d[D.longest] = due, false, longest or d[D.longest]
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'l', text(due), member)
      falls_due(q, due)
      answer = text(due)
    elseif not d and call('HEXISTS', q.b .. 'm', member) == 0 then
      answer = call('HEXISTS', q.b .. 'away', member) == 1 and -3 or -2
    end
    answers[#answers + 1] = answer
  end
  return close(q, answers)
end
