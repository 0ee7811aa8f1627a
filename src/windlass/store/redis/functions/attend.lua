-- attend: somebody wants to be told of changes, up to this time (ms from now on).
-- args: time, server, ms
writers.attend = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  call('HSET', keys[1], 'attended', text(math.max(q.attended, q.now + tonumber(args[3]))))
  return close(q, 0)
end
