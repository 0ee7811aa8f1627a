-- acknowledge: end leased messages, and those whose lease is over where that may be.
-- args: time, server, then for each: member, delivery, outcome ('-': none, else '+' and the JSON text), holder ('-': any,
--       else '+' and the name), '1' where somebody has to be told, '2' where its lease may be over, '3' for both
-- answer: 0 acknowledged, 1 stale, 2 gone, 3 it was moved to another queue: see there
local function settled_before(q, member, delivery, holder)
  if call('HEXISTS', q.b .. 'away', member) == 1 then return 3 end
  local packed = call('HGET', q.b .. 'e', member)
  if not packed then return 2 end
  local untl = tonumber(call('ZSCORE', q.b .. 'ex', member) or 'inf')
  local record = cmsgpack.unpack(packed)
  if untl <= q.now or record[10] == 0 then return 2 end
  local life = record[6]
  local same
  if holder then same = life[#life].by == holder else same = record[10] == delivery end
  return same and 0 or 2
end

-- The lease of a message's latest delivery is over: answers as `acknowledge` does.
local function settle_late(q, member, delivery, outcome, tell)
  local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  if raw and d[D.state] == LEASED then  -- that comes first: it may have been its last
    end_delivery(q, member, read(raw, member), raw, d, 'lease_expired', 0, nil, true, false)
    raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  end
  if not raw then return settled_before(q, member, delivery) end
  if d[D.state] == DEAD then return 1 end
  finish(q, member, read(raw, member), d, 'acknowledged', place_of(q, member, d), outcome, nil, tell)
  return 0
end

writers.acknowledge = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local answers, out, members, done, ended = {}, 0, {}, {}, {}
  for n = 3, #args, 5 do members[#members + 1] = args[n] end
  local packed = {}
  in_pieces(members, 2000, function(...)
    for _, each in ipairs(call('HMGET', q.b .. 'd', ...)) do packed[#packed + 1] = each end
  end)

  local function flush()
    in_pieces(done, 2000, function(...) call('ZREM', q.b .. 'l', ...) end)
    in_pieces(done, 2000, function(...) call('HDEL', q.b .. 'm', ...) end)
    in_pieces(done, 2000, function(...) call('HDEL', q.b .. 'd', ...) end)
    done = {}
  end

  for n = 3, #args, 5 do
    local member, delivery, outcome, holder = args[n], tonumber(args[n + 1]), optional(args[n + 2]), optional(args[n + 3])
    local asked, answer, index = args[n + 4], 1, (n + 2) / 5
    local tell, late = asked == '1' or asked == '3', asked == '2' or asked == '3'
    local d = not ended[member] and packed[index] and cmsgpack.unpack(packed[index]) or nil
    if ended[member] then
      flush()
      answer = settled_before(q, member, delivery, holder)
    elseif not d and call('HEXISTS', q.b .. 'm', member) == 0 then
      answer = settled_before(q, member, delivery, holder)
    elseif holds(q, d, delivery, holder) then
      ended[member] = true
      if d[D.plain] and q.history <= 0 and not outcome and not tell then
        done[#done + 1] = member
        drop_claim(q, member, d)
        gone(q, member)
      else
        finish(q, member, read(call('HGET', q.b .. 'm', member), member), d, 'acknowledged', LEASED, outcome, holder, tell)
      end
      out, answer = out + 1, 0
    elseif late and not holder and d and d[D.token] == delivery then
      answer = settle_late(q, member, delivery, outcome, tell)
      ended[member] = answer ~= 1
      if answer == 0 then out = out + 1 end
    end
    answers[#answers + 1] = answer
  end
  flush()
  rate(q, 'o', out)
  return close(q, answers)
end
