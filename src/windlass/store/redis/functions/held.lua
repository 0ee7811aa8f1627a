-- held: claims, all or those of one holder.
-- args: time, server, holder ('-' or '+' and the name)
-- answer: for each {member, what never changes, deliveries}
verbs.held = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local from, to, answer = '-', '+', {}
  if string.byte(args[3]) == 43 then
    local holder = string.sub(args[3], 2)
    from, to = '[' .. holder .. '\0', '(' .. holder .. '\1'
  end
  for _, entry in ipairs(call('ZRANGEBYLEX', q.b .. 'c', from, to)) do
    local member = string.match(entry, '%z([^%z]*)$')
    answer[#answer + 1] = { member, call('HGET', q.b .. 'm', member), call('HGET', q.b .. 'd', member) }
  end
  return answer
end
