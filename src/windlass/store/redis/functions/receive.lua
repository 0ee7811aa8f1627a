-- receive: the first ready messages, for many requests, in the order in which they came.
-- args: time, server, then for each request: how many, lease in ms ('': none, '-1': the queue's), holder, claim ('': none)
-- answer: for each request a list of {member, what never changes, delivery, deliveries, end of the lease};
--         `more` behind it: 1 where so many had run out that the rest has to be asked for anew
local FEW, MOST_OVER = 64, 512

local function hand_out(q, member, m, raw, d, lease, holder, claim)
  if not lease then
    if q.history > 0 then
      remember(q, member, m, d, 'received', nil, holder)
    else
      unpoint(q, member)
    end
    take_out(q, member, m, d, READY)
    gone(q, member)
    return { member, raw, 0, (d and d[D.count] or 0) + 1, 0 }
  end
  d = d or fresh()
  local due = q.now + (lease == -1 and q.lease or lease)
  d[D.state], d[D.due], d[D.token], d[D.count], d[D.since], d[D.holder], d[D.claim], d[D.tentative], d[D.plain] =
    LEASED, due, d[D.token] + 1, d[D.count] + 1, q.now, holder, claim or false, claim and true or false,
    m.plain and q.history <= 0 or false
  d[D.longest] = 0
  call('ZREM', q.b .. 'r', member)
  call('ZADD', q.b .. 'l', text(due), member)
  if claim then call('ZADD', q.b .. 'c', 0, claim_entry(holder, member)) end
  keep_delivery(q, member, d)
  return { member, raw, d[D.token], d[D.count], text(due) }
end

-- Plain messages that were never delivered leave all at once.
local function take_plain(q, members, raws, taken)
  in_pieces(members, 2000, function(...) call('ZREM', q.b .. 'r', ...) end)
  in_pieces(members, 2000, function(...) call('HDEL', q.b .. 'm', ...) end)
  for n, member in ipairs(members) do
    gone(q, member)
    taken[#taken + 1] = { member, raws[n], 0, 1, 0 }
  end
end

writers.receive = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  if (first_score(q, 'l') or q.now + 1) <= q.now or (first_score(q, 'y') or q.now + 1) <= q.now then lapse(q) end
  local answers, over, more, out = {}, 0, 0, 0
  local simple = not q.paused and q.history <= 0 and not q.cutoff and call('EXISTS', q.b .. 'd') == 0
  for n = 3, #args, 4 do
    local limit, lease, holder, claim = tonumber(args[n]), tonumber(args[n + 1]), args[n + 2], args[n + 3]
    local taken, size = {}, 0
    if claim == '' then claim = nil end
    while not q.paused and #taken < limit and more == 0 do
      local found = call('ZRANGE', q.b .. 'r', 0, math.min(limit - #taken, lease and 1000 or FEW) - 1)
      if #found == 0 then break end
      local raws = {}
      in_pieces(found, 2000, function(...)
        for _, raw in ipairs(call('HMGET', q.b .. 'm', ...)) do raws[#raws + 1] = raw end
      end)
      local full, members, plain = false, {}, {}
      for i, member in ipairs(found) do
        local raw = raws[i]
        local m = read(raw, member)
        if is_over(q, m) then
          finish(q, member, m, delivery_of(q, member), 'expired', READY)
          over = over + 1
        else
          size = size + m.size
          if size > MAX_BYTES and (#taken > 0 or #members > 0) then full = true break end
          if not lease and m.plain and simple then
            members[#members + 1], plain[#plain + 1] = member, raw
          else
            take_plain(q, members, plain, taken)
            members, plain = {}, {}
            taken[#taken + 1] = hand_out(q, member, m, raw, delivery_of(q, member), lease, holder, claim)
            if m.group and not lease then break end  -- the next of its group competes with the rest
          end
        end
      end
      take_plain(q, members, plain, taken)
      if full then break end
      if over >= MOST_OVER and #taken == 0 then more = 1 end
    end
    if not lease then out = out + #taken end
    answers[#answers + 1] = taken
  end
  rate(q, 'o', out)
  local result = close(q, answers)
  result[#result + 1] = more
  return result
end
