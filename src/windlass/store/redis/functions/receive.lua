-- receive: the first ready messages, for many requests, in the order in which they came.
-- args: time, server, then for each request: how many, lease in ms ('': none, '-1': the queue's), holder, claim ('': none),
--       '1' where what is blocked behind a leased message of a group comes along
-- answer: for each request a list of {member, what never changes, delivery, deliveries, end of the lease};
--         behind all: 1 where so many had run out that requests which got nothing have to ask anew
local FEW, MOST, MOST_OVER, GOOD = 32, 1000, 512, 4 * 1024 * 1024

-- Reads the front of the queue a piece at a time, and writes down what becomes of it a piece at a time.
local function front(q, wanted)
  local f = { at = 1, members = {}, raws = {}, ds = {}, wanted = wanted, piece = FEW }
  local gone_ones, leased, ends, deliveries, claims = {}, {}, {}, {}, {}

  function f.flush()
    if #gone_ones > 0 then
      in_pieces(gone_ones, 2000, function(...) call('ZREM', q.b .. 'r', ...) end)
      in_pieces(gone_ones, 2000, function(...) call('HDEL', q.b .. 'm', ...) end)
      gone_ones = {}
    end
    if #leased > 0 then
      in_pieces(leased, 2000, function(...) call('ZREM', q.b .. 'r', ...) end)
      in_pieces(ends, 2000, function(...) call('ZADD', q.b .. 'l', ...) end)
      in_pieces(deliveries, 2000, function(...) call('HSET', q.b .. 'd', ...) end)
      leased, ends, deliveries = {}, {}, {}
    end
    if #claims > 0 then
      in_pieces(claims, 2000, function(...) call('ZADD', q.b .. 'c', ...) end)
      claims = {}
    end
  end

  -- The next member, what never changes of it and its deliveries; nil at the end.
  function f.peek()
    if f.at > #f.members then
      f.flush()
      f.at, f.raws, f.ds = 1, {}, {}
      f.members = call('ZRANGE', q.b .. 'r', 0, math.min(f.wanted, f.piece) - 1)
      if #f.members == 0 then return nil end
      f.raws = call('HMGET', q.b .. 'm', unpack(f.members))
      f.ds = call('HMGET', q.b .. 'd', unpack(f.members))
      local size = 1
      for _, raw in ipairs(f.raws) do size = size + #raw end
      f.piece = math.max(1, math.min(MOST, math.floor(GOOD * #f.members / size)))
    end
    local packed = f.ds[f.at]
    return f.members[f.at], f.raws[f.at], packed and cmsgpack.unpack(packed) or nil
  end

  function f.step() f.at = f.at + 1 end

  -- What is ready has changed.
  function f.anew() f.flush() f.members, f.at = {}, 1 end

  function f.remove(member)
    gone_ones[#gone_ones + 1] = member
    gone(q, member)
  end

  function f.lease(member, due, d, claim)
    leased[#leased + 1] = member
    ends[#ends + 1], ends[#ends + 2] = due, member
    deliveries[#deliveries + 1], deliveries[#deliveries + 2] = member, cmsgpack.pack(d)
    if claim then claims[#claims + 1], claims[#claims + 2] = 0, claim_entry(d[D.holder], member) end
  end

  return f
end

local function lease_out(q, f, member, m, raw, d, lease, holder, claim)
  d = d or fresh()
  local due = q.now + (lease == -1 and q.lease or lease)
  d[D.state], d[D.due], d[D.token], d[D.count], d[D.since], d[D.holder], d[D.claim], d[D.tentative] =
    LEASED, due, d[D.token] + 1, d[D.count] + 1, q.now, holder, claim or false, claim and true or false
  d[D.plain], d[D.longest] = m.plain and q.history <= 0 or false, 0
  falls_due(q, due)
  f.lease(member, text(due), d, claim)
  return { member, raw, d[D.token], d[D.count], text(due) }
end

-- Lease those of its group that are blocked behind a message alone, which has just been; returns the size of all.
local function lease_followers(q, f, member, m, limit, taken, size, lease, holder, claim)
  local prefix = group_prefix(m.group)
  local entries = call('ZRANGEBYLEX', q.b .. 'g', '(' .. group_entry(m, member), '(' .. prefix .. ';',
                       'LIMIT', 0, limit - #taken)
  for _, entry in ipairs(entries) do
    local follower = string.sub(entry, #prefix + 17)
    local raw, d = call('HGET', q.b .. 'm', follower), delivery_of(q, follower)
    local its = read(raw, follower)
    if d and d[D.state] ~= READY or size + its.size > MAX_BYTES then break end
    if not is_over(q, its) then
      size = size + its.size
      taken[#taken + 1] = lease_out(q, f, follower, its, raw, d, lease, holder, claim)
    end
  end
  return size
end

local function hand_over(q, f, member, m, raw, d, holder)
  if m.plain and not d and q.history <= 0 then
    f.remove(member)
    return { member, raw, 0, 1, 0 }
  end
  f.flush()
  if not remember(q, member, m, d, 'received', nil, holder) then unpoint(q, member) end
  take_out(q, member, m, d, READY)
  gone(q, member)
  if m.group then f.anew() end  -- the next of its group competes with the rest
  return { member, raw, 0, (d and d[D.count] or 0) + 1, 0 }
end

writers.receive = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  if (first_score(q, 'l') or q.now + 1) <= q.now or (first_score(q, 'y') or q.now + 1) <= q.now then lapse(q) end
  local answers, over, more, out, wanted = {}, 0, 0, 0, 0
  for n = 3, #args, 5 do wanted = wanted + tonumber(args[n]) end
  local f = front(q, wanted)
  for n = 3, #args, 5 do
    local limit, lease, holder, claim = tonumber(args[n]), tonumber(args[n + 1]), args[n + 2], args[n + 3]
    local taken, size = {}, 0
    if claim == '' then claim = nil end
    while not q.paused and #taken < limit and more == 0 do
      local member, raw, d = f.peek()
      if not member then break end
      local m = read(raw, member)
      if is_over(q, m) then
        f.flush()
        f.step()
        finish(q, member, m, d, 'expired', READY)
        if m.group then f.anew() end
        over = over + 1
        if over >= MOST_OVER and #taken == 0 then more = 1 end
      else
        size = size + m.size
        if size > MAX_BYTES and #taken > 0 then break end
        f.step()
        f.wanted = f.wanted - 1
        if lease then
          taken[#taken + 1] = lease_out(q, f, member, m, raw, d, lease, holder, claim)
          if m.group and args[n + 4] == '1' then
            size = lease_followers(q, f, member, m, limit, taken, size, lease, holder, claim)
          end
        else
          taken[#taken + 1] = hand_over(q, f, member, m, raw, d, holder)
          out = out + 1
        end
      end
    end
    answers[#answers + 1] = taken
  end
  f.flush()
  rate(q, 'o', out)
  local result = close(q, answers)
  result[#result + 1] = more
  return result
end
