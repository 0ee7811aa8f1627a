-- A move between queues, which may lie on different servers: leave (`leave` in common.lua), arrive, depart, forget.
-- Whoever finds one that was cut in two goes on: arriving twice does nothing, and so does departing. Somebody may
-- have looked at it, and stood still while others finished it: an arrival is known for a while after that, and whoever
-- looked longer ago has to look again.

-- What `v` holds of a message that left (see `leave`), and its content.
local function left_of(packed)
  local size = struct.unpack('>I4', packed)
  local left = cmsgpack.unpack(string.sub(packed, 5, 4 + size))
  return left, string.sub(packed, 5 + size)
end

-- That message, as `read` gives one.
local function message_left(left)
  return { at = left[6], place = left[7], rank = left[8], group = left[9] or nil, headers = left[10] or nil,
           expires = left[11] }
end

-- Whether this move of a message is not over.
local function is_leaving(q, member, token)
  local packed = call('HGET', q.b .. 'v', member)
  return packed and left_of(packed)[1] == token
end

-- arrive: a message that left another queue comes in.
-- args: time, server, what `v` holds of it, the member that it is here, when that was looked at
-- answer: 1, 0 where it is known here, 2 where that was too long ago
writers.arrive = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local left, content = left_of(args[3])
  local member = args[4]
  local token, kind, home, number, d = left[1], left[3], left[4], left[5], left[12]
  if q.now - tonumber(args[5]) > LOOKED_AT then return close(q, 2) end
  if call('ZSCORE', q.b .. 'wx', token) or call('HSETNX', q.b .. 'w', token, text(q.now)) == 0 then return close(q, 0) end
  if home == q.number then call('HDEL', q.b .. 'away', number) end
  local m = message_left(left)
  if kind == 'letter' then
    m.origin = tonumber(string.match(token, '^%d+'))
    call('ZADD', q.b .. 'o', 0, letter_entry(m, member))
  else
    m.at, m.place = q.now, places(q, 1)
    if m.expires > 0 then
      call('ZADD', q.b .. 'x', text(m.expires), member)
      falls_due(q, m.expires)
    end
  end
  call('HSET', q.b .. 'm', member, write(m, content))
  keep_delivery(q, member, d)
  enter(q, member, m)
  return close(q, 1)
end

-- depart: it has arrived.
-- args: time, server, member, token
writers.depart = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  if is_leaving(q, args[3], args[4]) then call('HDEL', q.b .. 'v', args[3]) end
  return close(q, 0)
end

-- forget: it has departed; soon nobody can let it arrive again.
-- args: time, server, token
writers.forget = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  if call('HDEL', q.b .. 'w', args[3]) == 1 then call('ZADD', q.b .. 'wx', text(q.now + ARRIVAL_KEPT), args[3]) end
  return close(q, 0)
end

-- point: a message of this queue is now in another one, or ('') nowhere any more.
-- args: time, server, place, number of that queue
writers.point = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  if args[4] == '' then
    call('HDEL', q.b .. 'away', args[3])
  else
    call('HSET', q.b .. 'away', args[3], args[4] .. ':' .. text(call('HINCRBY', q.b .. 's', 'moved', 1)))
  end
  return close(q, 0)
end

-- unpoint: these pointers lead nowhere. One that was set anew since is another, and stays.
-- args: time, server, then for each: place, the pointer
writers.unpoint = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  for n = 3, #args, 2 do
    if call('HGET', q.b .. 'away', args[n]) == args[n + 1] then call('HDEL', q.b .. 'away', args[n]) end
  end
  return close(q, 0)
end

-- pointers: some places whose messages are elsewhere, at random, and the pointer of each behind it. None of a message
-- that may not have arrived.
-- args: time, server, how many
verbs.pointers = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local found, drawn = {}, call('HRANDFIELD', q.b .. 'away', args[3], 'WITHVALUES')
  for n = 1, #drawn, 2 do
    if call('HEXISTS', q.b .. 'v', drawn[n]) == 0 then
      found[#found + 1], found[#found + 2] = drawn[n], drawn[n + 1]
    end
  end
  return found
end

-- comeback: the queue that it left for is gone. A letter stays here as dead, a redriven one starts here anew.
-- args: time, server, member, token
writers.comeback = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local packed = call('HGET', q.b .. 'v', member)
  if not packed then return close(q, 0) end
  local left, content = left_of(packed)
  if left[1] ~= args[4] then return close(q, 0) end
  local d = left[12]
  local m = message_left(left)
  call('HDEL', q.b .. 'v', member)
  if left[4] == q.number then call('HDEL', q.b .. 'away', left[5]) end
  if left[3] == 'letter' then
    d[D.state], d[D.since] = DEAD, m.at
    call('ZADD', q.b .. 'z', text(m.at), member)
    call('HSET', q.b .. 'm', member, write(m, content))
  else
    m.at, m.place = q.now, places(q, 1)
    if m.expires > 0 then
      call('ZADD', q.b .. 'x', text(m.expires), member)
      falls_due(q, m.expires)
    end
    call('HSET', q.b .. 'm', member, write(m, content))
    enter(q, member, m)
  end
  keep_delivery(q, member, d)
  return close(q, 1)
end

-- has_left: 1 while this move is not over. args: time, server, member, token
verbs.has_left = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  return is_leaving(q, args[3], args[4]) and 1 or 0
end

-- stale_arrivals: tokens of messages that arrived here before a time, for whoever knows whether they departed.
-- args: time, server, that time
verbs.stale_arrivals = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local found, all = {}, call('HGETALL', q.b .. 'w')
  for n = 1, #all, 2 do
    if tonumber(all[n + 1]) <= tonumber(args[3]) and #found < 1000 then found[#found + 1] = all[n] end
  end
  return found
end
