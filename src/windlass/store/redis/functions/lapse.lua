-- What time brings to a queue, a bite at a time.

local function past(q, key) return call('ZRANGEBYSCORE', q.b .. key, '-inf', text(q.now), 'LIMIT', 0, BITE) end

local function bite(q, key, use)
  local found = past(q, key)
  for _, member in ipairs(found) do use(member) end
  q.full = q.full or #found == BITE
end

-- Leases and delays that are over.
local function lapse(q)
  bite(q, 'l', function(member)
    local raw = call('HGET', q.b .. 'm', member)
    end_delivery(q, member, read(raw, member), raw, delivery_of(q, member), 'lease_expired', 0, nil, true, false)
  end)
  bite(q, 'y', function(member)
    local d = delivery_of(q, member)
    local m = read(call('HGET', q.b .. 'm', member), member)
    call('ZREM', q.b .. 'y', member)
    d[D.state], d[D.due] = READY, 0
    keep_delivery(q, member, d)
    if not m.group or head_of(q, m.group) == member then make_ready(q, member, m) end
  end)
end
