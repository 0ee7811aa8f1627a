-- acknowledge: end leased messages.
-- args: time, server, then for each: member, delivery, outcome ('-': none, else '+' and the JSON text), holder ('-': any,
--       else '+' and the name), '1' where somebody has to be told
-- answer: 0 acknowledged, 1 stale, 2 gone
local function optional(argument) return string.byte(argument) == 43 and string.sub(argument, 2) or nil end

local function settled_before(q, member, delivery, holder)
  if call('HEXISTS', q.b .. 'away', member) == 1 then return 1 end
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
    local tell, answer, index = args[n + 4] == '1', 1, (n + 2) / 5
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
    end
    answers[#answers + 1] = answer
  end
  flush()
  rate(q, 'o', out)
  return close(q, answers)
end

-- extend: let leases go on.
-- args: time, server, then for each: member, lease in ms ('': as it is), delivery, holder ('-' or '+' and the name),
--       the most that it may last since it began ('': no limit)
-- answer: when each ends (text), -1 stale, -2 gone
writers.extend = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local answers = {}
  for n = 3, #args, 5 do
    local member, lease, delivery, holder = args[n], tonumber(args[n + 1]), tonumber(args[n + 2]), optional(args[n + 3])
    local longest, d = tonumber(args[n + 4]), delivery_of(q, member)
    local answer = -1
    if holds(q, d, delivery, holder) then
      local due = lease and q.now + lease or d[D.due]
      if longest then due = math.min(due, d[D.since] + longest) end
      d[D.due], d[D.tentative], d[D.longest] = due, false, longest or d[D.longest]
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'l', text(due), member)
      falls_due(q, due)
      answer = text(due)
    elseif not d and call('HEXISTS', q.b .. 'm', member) == 0 and call('HEXISTS', q.b .. 'away', member) == 0 then
      answer = -2
    end
    answers[#answers + 1] = answer
  end
  return close(q, answers)
end

-- release: give a leased message back.
-- args: time, server, member, delivery, delay in ms, holder ('-' or '+' and the name), reason, '1' where it counts,
--       '1' where it was the last
-- answer: 0 done, 1 stale, 2 gone
writers.release = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  if not raw then return close(q, call('HEXISTS', q.b .. 'away', member) == 1 and 1 or 2) end
  if not holds(q, d, tonumber(args[4]), optional(args[6])) then return close(q, 1) end
  end_delivery(q, member, read(raw, member), raw, d, 'given_back', tonumber(args[5]), args[7], args[8] == '1', args[9] == '1')
  return close(q, 0)
end

-- cancel: end a message.
-- args: time, server, member, '1' where it may be leased, what its life calls the end, outcome ('-' or '+' and the text)
-- answer: 0 done, 1 it is leased, 2 gone
writers.cancel = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member, outcome = args[3], optional(args[6])
  local raw, d = call('HGET', q.b .. 'm', member), delivery_of(q, member)
  if not raw then return close(q, 2) end
  local place = place_of(q, member, d)
  if place == LEASED and args[4] ~= '1' then return close(q, 1) end
  finish(q, member, read(raw, member), d, args[5], place, outcome, nil, outcome ~= nil)
  return close(q, 0)
end

-- told: this end is known where it has to be.
-- args: time, server, member, how long it is kept from now on (ms)
writers.told = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member, untl = args[3], text(q.now + tonumber(args[4]))
  if call('ZREM', q.b .. 'u', member) == 1 then
    local d = delivery_of(q, member)
    if d and d[D.state] == DEAD then
      d[D.claim] = false
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'zx', untl, member)
    else
      call('ZADD', q.b .. 'ex', untl, member)
    end
    falls_due(q, tonumber(untl))
  end
  return close(q, 0)
end

-- resume: confirmed claims have a whole lease from now on: nobody could extend them while no server was there.
-- args: time, server
writers.resume = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  for _, entry in ipairs(call('ZRANGEBYLEX', q.b .. 'c', '-', '+')) do
    local member = string.match(entry, '%z([^%z]*)$')
    local d = delivery_of(q, member)
    local due = q.now + q.lease
    if d and d[D.longest] > 0 then due = math.min(due, d[D.since] + d[D.longest]) end
    if d and d[D.state] == LEASED and not d[D.tentative] and d[D.due] < due then
      d[D.due] = due
      keep_delivery(q, member, d)
      call('ZADD', q.b .. 'l', text(d[D.due]), member)
      falls_due(q, d[D.due])
    end
  end
  return close(q, 0)
end
