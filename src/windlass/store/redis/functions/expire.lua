-- expire: a bite of what is due.
-- args: time, server
-- answer: 1 where there is more
local function past(q, key, limit)
  return call('ZRANGEBYSCORE', q.b .. key, '-inf', text(q.now), 'LIMIT', 0, limit or BITE)
end

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

writers.expire = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local full = false
  local function bite(key, use)
    local found = past(q, key)
    for _, member in ipairs(found) do use(member) end
    full = full or #found == BITE
  end
  bite('l', function(member)
    local raw = call('HGET', q.b .. 'm', member)
    end_delivery(q, member, read(raw, member), raw, delivery_of(q, member), 'lease_expired', 0, nil, true, false)
  end)
  bite('y', function(member)
    local d = delivery_of(q, member)
    local m = read(call('HGET', q.b .. 'm', member), member)
    call('ZREM', q.b .. 'y', member)
    d[D.state], d[D.due] = READY, 0
    keep_delivery(q, member, d)
    if not m.group or head_of(q, m.group) == member then make_ready(q, member, m) end
  end)
  bite('x', function(member)
    local d = delivery_of(q, member)
    if d and d[D.state] == LEASED then  -- whoever holds it may finish; it will not be handed out again
      call('ZREM', q.b .. 'x', member)
      d[D.lapsed] = true
      keep_delivery(q, member, d)
    else
      finish(q, member, read(call('HGET', q.b .. 'm', member), member), d, 'expired', place_of(q, member, d))
    end
  end)
  if q.cutoff then full = retire(q) >= BITE or full end
  bite('zx', function(member)  -- whoever had to be told of it was, long ago
    unpoint(q, member)
    take_out(q, member, read(call('HGET', q.b .. 'm', member), member), delivery_of(q, member), DEAD)
    gone(q, member)
  end)
  bite('ex', function(member)
    call('HDEL', q.b .. 'e', member)
    call('ZREM', q.b .. 'ex', member)
    unpoint(q, member)
  end)
  bite('ddx', function(id)
    call('HDEL', q.b .. 'dd', id)
    call('ZREM', q.b .. 'ddx', id)
  end)
  bite('anx', function(key)
    call('HDEL', q.b .. 'an', key)
    call('ZREM', q.b .. 'anx', key)
  end)
  -- What left and did not arrive for certain: whoever asked goes on with it.
  local left = call('HRANDFIELD', q.b .. 'v', 64, 'WITHVALUES')
  for n = 1, #left, 2 do q.moves[#q.moves + 1] = { left[n], left[n + 1] } end
  return close(q, full and 1 or 0)
end
