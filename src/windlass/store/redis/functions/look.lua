-- Looks, which change nothing.

-- stats: args: time, server
-- answer: settings as JSON, '1' where it is paused, when it was created, messages ready, leased, delayed, dead and
--         blocked, and the seconds and counts of `t`
verbs.stats = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local function count(key) return call('ZCARD', q.b .. key) end
  local ready, leased, delayed, dead = count('r'), count('l'), count('y'), count('z')
  local moving = call('HLEN', q.b .. 'v')
  local s = call('HMGET', keys[1], 'json', 'paused', 'created')
  return { s[1], s[2], s[3], ready, leased, delayed, dead + moving, length(q) - ready - leased - delayed - dead,
           call('HGETALL', q.b .. 't'), text(q.now) }
end

-- ready: how many messages may be received. args: time, server
verbs.ready = function(keys)
  if call('HGET', keys[1], 'paused') == '1' then return 0 end
  return call('ZCARD', string.sub(keys[1], 1, -2) .. 'r')
end

-- find: all that is known of a message.
-- args: time, server, member
-- answer: {'living', state, what never changes, deliveries}, {'ended', record}, {'away', number of a queue}, or {'none'}
verbs.find = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local raw = call('HGET', q.b .. 'm', member)
  if raw then
    local d = delivery_of(q, member)
    return { 'living', place_of(q, member, d), raw, d and call('HGET', q.b .. 'd', member) or '' }
  end
  if call('HEXISTS', q.b .. 'v', member) == 1 then return { 'moving' } end
  local away = call('HGET', q.b .. 'away', member)
  if away then return { 'away', away } end
  local record = call('HGET', q.b .. 'e', member)
  if record and tonumber(call('ZSCORE', q.b .. 'ex', member) or 'inf') > q.now then return { 'ended', record } end
  return { 'none' }
end

-- peek: messages of one state in order.
-- args: time, server, state, how many
-- answer: for each {member, what never changes, deliveries}
verbs.peek = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local state, limit = tonumber(args[3]), tonumber(args[4])
  local answer, size = {}, 0

  local function add(member)
    local raw = call('HGET', q.b .. 'm', member)
    local m = read(raw, member)
    if state == READY and is_over(q, m) then return true end
    size = size + m.size
    if size > MAX_BYTES and #answer > 0 then return false end
    answer[#answer + 1] = { member, raw, call('HGET', q.b .. 'd', member) or '' }
    return #answer < limit
  end

  local function walk(page)
    local at = 0
    while true do
      local found = page(at)
      for _, member in ipairs(found) do if not add(member) then return end end
      at = at + #found
      if #found < 1000 then return end
    end
  end

  if state == BLOCKED then
    local waiting = length(q) - call('ZCARD', q.b .. 'r') - call('ZCARD', q.b .. 'l') - call('ZCARD', q.b .. 'y') -
      call('ZCARD', q.b .. 'z')
    limit = math.min(limit, waiting)
    if limit <= 0 then return answer end
    local group, at = nil, 0
    while true do
      local found = call('ZRANGEBYLEX', q.b .. 'g', '-', '+', 'LIMIT', at, 1000)
      for _, entry in ipairs(found) do
        local head = 4 + tonumber(string.sub(entry, 1, 4), 16)
        local member = string.sub(entry, head + 17)
        local first = string.sub(entry, 1, head) ~= group
        group = string.sub(entry, 1, head)
        if not first then
          local d = delivery_of(q, member)
          if (not d or d[D.state] == READY) and not add(member) then return answer end
        end
      end
      at = at + #found
      if #found < 1000 then return answer end
    end
  end
  local key = ({ [READY] = 'r', [LEASED] = 'l', [DELAYED] = 'y', [DEAD] = 'z' })[state]
  walk(function(at) return call('ZRANGE', q.b .. key, at, at + math.min(limit, 1000) - 1) end)
  return answer
end

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
