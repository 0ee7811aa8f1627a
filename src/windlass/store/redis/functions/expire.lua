local function retire(q)
  local most = text((q.cutoff - EPOCH) * 128)
  local done = 0
  for rank = 0, 9 do
    local from = text(rank * RANK)
    -- Places may run ahead of the time, never behind it.
    for _, member in ipairs(call('ZRANGEBYSCORE', q.b .. 'r', from, text(rank * RANK + math.max(most, q.last)), 'LIMIT', 0, BITE)) do
      local m = read(call('HGET', q.b .. 'm', member), member)
      if m.at > q.cutoff then break end
      finish(q, member, m, delivery_of(q, member), 'expired', READY)
      done = done + 1
    end
  end
  for _, member in ipairs(call('ZRANGEBYSCORE', q.b .. 'z', '-inf', text(q.cutoff), 'LIMIT', 0, BITE)) do
    finish(q, member, read(call('HGET', q.b .. 'm', member), member), delivery_of(q, member), 'expired', DEAD)
    done = done + 1
  end
  return done
end

-- expire: a bite of what is due.
-- args: time, server
-- answer: 1 where there is more
writers.expire = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  lapse(q)
  bite(q, 'x', function(member)
    local d = delivery_of(q, member)
    if d and d[D.state] == LEASED then  -- whoever holds it may finish; it will not be handed out again
      call('ZREM', q.b .. 'x', member)
      d[D.lapsed] = true
      keep_delivery(q, member, d)
    else
      finish(q, member, read(call('HGET', q.b .. 'm', member), member), d, 'expired', place_of(q, member, d))
    end
  end)
  if q.cutoff then q.full = retire(q) >= BITE or q.full end
  bite(q, 'zx', function(member)  -- whoever had to be told of it was, long ago
    unpoint(q, member)
    take_out(q, member, read(call('HGET', q.b .. 'm', member), member), delivery_of(q, member), DEAD)
    gone(q, member)
  end)
  bite(q, 'ex', function(member)
    call('HDEL', q.b .. 'e', member)
    call('ZREM', q.b .. 'ex', member)
    unpoint(q, member)
  end)
  bite(q, 'ddx', function(id)
    call('HDEL', q.b .. 'dd', id)
    call('ZREM', q.b .. 'ddx', id)
  end)
  bite(q, 'anx', function(key)
    call('HDEL', q.b .. 'an', key)
    call('ZREM', q.b .. 'anx', key)
  end)
  -- What left and did not arrive for certain: whoever asked goes on with it.
  q.moves, q.carried = {}, 0
  for _, member in ipairs(call('HRANDFIELD', q.b .. 'v', 64)) do moving(q, member, call('HGET', q.b .. 'v', member)) end
  bite(q, 'wx', function(token) call('ZREM', q.b .. 'wx', token) end)
  q.due = next_due(q)
  return close(q, q.full and 1 or 0)
end
