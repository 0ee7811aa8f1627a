-- configure: make it, or change its settings.
-- args: time, server, the settings as JSON that it has to have ('': none, it is new), then fields of `s` and values
-- answer: 0, 1 where somebody else has changed them, 2 where it is not new
writers.configure = function(keys, args)
  local known = call('HGET', keys[1], 'json')
  if args[3] == '' and known then return close(open(keys, args), 2) end
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
