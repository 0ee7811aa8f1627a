-- untold: ends that nobody has confirmed.
-- args: time, server, how many
-- answer: for each {member, record} or {member, what never changes, deliveries}
verbs.untold = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local answer = {}
  for _, member in ipairs(call('ZRANGE', q.b .. 'u', 0, tonumber(args[3]) - 1)) do
    local raw = call('HGET', q.b .. 'm', member)
    answer[#answer + 1] = raw and { member, raw, call('HGET', q.b .. 'd', member) } or
      { member, call('HGET', q.b .. 'e', member) }
  end
  return answer
end
