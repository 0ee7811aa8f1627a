-- oldest: when the oldest ready message was enqueued, '' where none is ready.
-- args: time, server
verbs.oldest = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local oldest
  for rank = 0, 9 do
    local from, to, at = text(rank * RANK), '(' .. text((rank + 1) * RANK), 0
    while at do
      local found = call('ZRANGEBYSCORE', q.b .. 'r', from, to, 'LIMIT', at, 64)
      at = #found == 64 and at < 6400 and at + 64 or nil
      for _, member in ipairs(found) do
        local m = read(call('HGET', q.b .. 'm', member), member)
        if not is_over(q, m) then
          if not oldest or m.at < oldest then oldest = m.at end
          at = nil
          break
        end
      end
    end
  end
  return oldest and text(oldest) or ''
end
