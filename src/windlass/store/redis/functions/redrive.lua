-- redrive: a bite of dead messages gets a new start: those dead here, then letters that came here.
-- args: time, server, how many, number of the queue whose letters alone are meant ('': all, and the dead)
-- answer: {how many, '1' where that was all}
writers.redrive = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local limit, origin = math.min(tonumber(args[3]), 64), tonumber(args[4])
  local moved = 0

  local function restart(member, place)
    local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member) or fresh()
    local m = read(raw, member)
    local target = m.origin
    d[D.life] = remember_event(d[D.life], { event = 'redriven', at = q.now })
    local claim = d[D.claim]
    d[D.state], d[D.due], d[D.since], d[D.count], d[D.base], d[D.holder], d[D.claim] = READY, 0, 0, 0, 0, false, false
    if target and target ~= q.number then
      leave(q, member, m, raw, d, place, target, 'redriven')
    else
      take_out(q, member, m, nil, place)
      m.origin, m.at, m.place = nil, q.now, places(q, 1)
      call('HSET', q.b .. 'm', member, write(m, content_of(m, raw)))
      keep_delivery(q, member, d)
      enter(q, member, m)
    end
    moved = moved + 1
    return claim
  end

  if not origin then
    for _, member in ipairs(call('ZRANGE', q.b .. 'z', 0, limit - 1)) do restart(member, DEAD) end
  end
  if moved == 0 then
    local from, to = '-', '+'
    if origin then from, to = '[' .. string.format('%010d', origin), '(' .. string.format('%010d', origin + 1) end
    local at = 0
    while moved < limit do
      local found = call('ZRANGEBYLEX', q.b .. 'o', from, to, 'LIMIT', at, 256)
      for _, entry in ipairs(found) do
        local member = string.sub(entry, 27)
        if moved < limit and call('ZSCORE', q.b .. 'r', member) then restart(member, READY) else at = at + 1 end
      end
      if #found < 256 then break end
    end
  end
  return close(q, { moved, moved == 0 and 1 or 0 })
end
