-- What all verbs share. The verbs of this library are in files of their own; library.py puts them together
-- behind this one. Each has one key, `PREFIX:{QUEUE}:s`, whose other keys begin alike and so share its slot:
--
--   s    hash    settings; `last`: the last place given out; `purged`: when, by who wants purges apart
--   m    hash    member -> what never changes of a living message: see `read`
--   d    hash    member -> its deliveries, once it had any: see D
--   r    zset    ready:   rank and place -> member
--   l    zset    leased:  end of the lease
--   y    zset    delayed: end of the delay
--   z    zset    dead:    when it was enqueued
--   zx   zset    dead, and to be forgotten at this time
--   x    zset    of a ttl: when it ends
--   g    zset    of a group: group, place and member, in lexical order
--   o    zset    letters of other queues: origin, place and member, in lexical order
--   c    zset    claims: holder and member, in lexical order
--   e    hash    member -> record of one that ended; ex (zset): until when it is kept; u (zset): nobody was told
--   dd   hash    dedup id -> place and end of its window; ddx (zset): that end
--   an   hash    Idempotency-Key -> answer; anx (zset): until when
--   t    hash    messages in and out, by second
--   v    hash    member -> one that leaves for another queue and has not arrived for certain
--   w    hash    token -> when such a one arrived here; wx (zset): those that have departed, until when they are known
--   away hash    place -> number of the queue in which a message of this one is now, and behind a colon a count, so
--                that a pointer is never what an earlier one was
--
-- A blocked message is in none of r, l, y, z. A member is a message's place in the queue that it was sent to,
-- with the number of that queue and a colon before it where that is another one. Times are ms since 1970.

local function call(...) return redis.call(...) end  -- redis.call is not there yet while this is loaded
local EPOCH = 1600000000000  -- places begin here: 41 bits of ms, then 7 to count
local RANK = 2 ^ 48
local MAX_BYTES = 16 * 1024 * 1024
local FORGIVEN = 10
local BITE = 256
local ANSWER_KEPT = 24 * 3600 * 1000
local LOOKED_AT, ARRIVAL_KEPT = 30 * 1000, 60 * 1000  -- see `arrive`
local PAST_LIMIT, PAST_BEGINNING, PAST_LATEST = 4000, 4, 2000
local READY, LEASED, DELAYED, DEAD, BLOCKED = 0, 1, 2, 3, 4

-- A delivery record is an array:
local D = { state = 1, due = 2, token = 3, count = 4, base = 5, since = 6, holder = 7, lapsed = 8, life = 9,
            claim = 10, tentative = 11, forgiven = 12, unseen = 13, plain = 14, longest = 15 }

local verbs, writers = {}, {}

local function text(number) return string.format('%.0f', number) end

-- ---------------------------------------------------------------------------------------------------- queue

local function clock(given)
  if given ~= '0' then return tonumber(given) end
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- '-' for nothing, or '+' and a text.
local function optional(argument) return string.byte(argument) == 43 and string.sub(argument, 2) or nil end

local NONE = { err = 'NOQUEUE there is no such queue' }

-- A queue as one call sees it; nil where it is not there. args[1] is the time (0: the server's), args[2] who asks.
local function open(keys, args)
  local base = string.sub(keys[1], 1, -2)
  local s = call('HMGET', keys[1], 'number', 'paused', 'lease', 'maxdel', 'dl', 'maxlen', 'maxbytes', 'retention',
                 'dedup', 'history', 'outcome', 'last', 'attended', 'name', 'dlname')
  if not s[1] then return nil end
  local now = clock(args[1])
  return {
    b = base, now = now, server = args[2], number = tonumber(s[1]), paused = s[2] == '1', lease = tonumber(s[3]),
    maxdel = tonumber(s[4]), dl = tonumber(s[5]), maxlen = tonumber(s[6]), maxbytes = tonumber(s[7]),
    cutoff = s[8] and s[8] ~= '' and now - tonumber(s[8]) or nil, retention = tonumber(s[8]),
    dedup = tonumber(s[9]), history = tonumber(s[10]), outcome = tonumber(s[11]), last = tonumber(s[12]),
    attended = tonumber(s[13]) or 0, name = s[14], dlname = s[15],
    ready = 0, ended = {}, died = {}, moves = {}, carried = 0, left = {},
  }
end

-- The first of `amount` new places. They rise with time, so those of different queues compare.
local function places(q, amount)
  local first = math.max(q.last + 1, (q.now - EPOCH) * 128)
  q.last = first + amount - 1
  call('HSET', q.b .. 's', 'last', text(q.last))
  return first
end

-- Something in it is due then: the registry has to know.
local function falls_due(q, moment) if not q.due or moment < q.due then q.due = moment end end

local function length(q) return call('HLEN', q.b .. 'm') end

-- Count messages that came in ('i') or went out ('o') in this second: the second and the count in one number.
local function rate(q, which, amount)
  if amount == 0 then return end
  local second = math.floor(q.now / 1000)
  local field = which .. second % 60
  local known = tonumber(call('HGET', q.b .. 't', field) or '0')
  local count = math.floor(known / 2 ^ 20) == second and known % 2 ^ 20 or 0
  call('HSET', q.b .. 't', field, text(second * 2 ^ 20 + math.min(count + amount, 2 ^ 20 - 1)))
end

local function first_score(q, key)
  local found = call('ZRANGE', q.b .. key, 0, 0, 'WITHSCORES')
  return found[2] and tonumber(found[2]) or nil
end

-- When something is next due, nil for never.
local function next_due(q)
  local due
  local function at(moment) if moment and (not due or moment < due) then due = moment end end
  for _, key in ipairs({ 'l', 'y', 'x', 'zx', 'ex', 'ddx', 'anx' }) do at(first_score(q, key)) end
  if q.retention then
    local dead = first_score(q, 'z')
    if dead then at(dead + q.retention) end
    for rank = 0, 9 do
      local first = call('ZRANGEBYSCORE', q.b .. 'r', text(rank * RANK), '(' .. text((rank + 1) * RANK), 'LIMIT', 0, 1)[1]
      -- Its place does not tell: one that was copied from a store of another kind has a low one.
      if first then at(struct.unpack('>I6', call('HGET', q.b .. 'm', first), 2) + q.retention) end
    end
  end
  if call('EXISTS', q.b .. 'v') == 1 then at(q.now) end
  return due
end

-- What a call comes to, behind its own answer: how many became ready, who ended, who died, the first moment at which
-- something is due that was not due before, what has to be moved on, whose pointers elsewhere lead nowhere now, how many are ready in all, and the time.
local function close(q, answer)
  if q.attended > q.now and (q.ready > 0 or #q.ended > 0 or #q.died > 0) then
    call('SPUBLISH', q.b .. 'n', cmsgpack.pack({ q.server, q.number, q.ready, q.ended, q.died }))
  end
  return { answer, q.ready, q.ended, q.died, q.due and text(q.due) or '', q.moves, q.left, call('ZCARD', q.b .. 'r'), text(q.now) }
end

local function in_pieces(list, size, use)
  for at = 1, #list, size do use(unpack(list, at, math.min(at + size - 1, #list))) end
end

-- -------------------------------------------------------------------------------------------------- records

-- What never changes of a message is 'P', its time (6 bytes) and its content; or 'S', its time, the length of a
-- head (2 bytes), that head as MessagePack, and the content. Head: place, rank, group, headers, expires, origin.
local function read(raw, member)
  local at = struct.unpack('>I6', raw, 2)
  if string.byte(raw) == 80 then
    return { at = at, place = tonumber(member), rank = 9, expires = 0, size = #raw - 7, plain = true }
  end
  local size = struct.unpack('>I2', raw, 8)
  local head = cmsgpack.unpack(string.sub(raw, 10, 9 + size))
  return { at = at, place = head[1], rank = head[2], group = head[3] or nil, headers = head[4] or nil,
           expires = head[5], origin = head[6] or nil, size = #raw - 9 - size, body = 10 + size }
end

local function write(m, content)
  local head = cmsgpack.pack({ m.place, m.rank, m.group or false, m.headers or false, m.expires, m.origin or false })
  return 'S' .. struct.pack('>I6', m.at) .. struct.pack('>I2', #head) .. head .. content
end

local function content_of(m, raw) return string.sub(raw, m.plain and 8 or m.body) end

local function delivery_of(q, member)
  local packed = call('HGET', q.b .. 'd', member)
  return packed and cmsgpack.unpack(packed) or nil
end

local function fresh() return { READY, 0, 0, 0, 0, 0, false, false, {}, false, false, 0, 0, false, 0 } end

local function keep_delivery(q, member, d) call('HSET', q.b .. 'd', member, cmsgpack.pack(d)) end

-- A message's home, if it is not here, and its place there.
local function home_of(member)
  local home, place = string.match(member, '^(%d+):(%d+)$')
  if home then return tonumber(home), place end
  return nil, member
end

local function event_size(event)
  local size = 10
  for name, value in pairs(event) do size = size + #name + #tostring(value) + 6 end
  return size
end

-- Add events to a message's past. Where it gets too long, those in the middle make room.
local function remember_event(life, ...)
  for _, event in ipairs({ ... }) do life[#life + 1] = event end
  local size = 0
  for _, event in ipairs(life) do size = size + event_size(event) end
  if size <= PAST_LIMIT then return life end
  local kept, omitted, from = {}, 0, PAST_BEGINNING + 1
  for n = 1, math.min(PAST_BEGINNING, #life) do kept[n] = life[n] end
  if life[from] and life[from].event == 'omitted' then omitted, from = life[from].omitted, from + 1 end
  local cut, room = #life + 1, PAST_LATEST
  while cut > from and room - event_size(life[cut - 1]) >= 0 do
    cut = cut - 1
    room = room - event_size(life[cut])
  end
  omitted = omitted + cut - from
  if omitted > 0 then kept[#kept + 1] = { event = 'omitted', omitted = omitted } end
  for n = cut, #life do kept[#kept + 1] = life[n] end
  return kept
end

local function lease_event(d)
  return { event = 'leased', at = d[D.since], ['until'] = d[D.due], by = d[D.holder] or '' }
end

-- --------------------------------------------------------------------------------------------------- groups

local function group_prefix(group) return string.format('%04x', #group) .. group end

local function group_entry(m, member) return group_prefix(m.group) .. string.format('%015d', m.place) .. ':' .. member end

-- The first living member of a group.
local function head_of(q, group)
  local prefix = group_prefix(group)
  local found = call('ZRANGEBYLEX', q.b .. 'g', '[' .. prefix, '(' .. prefix .. ';', 'LIMIT', 0, 1)[1]
  return found and string.sub(found, #prefix + 17) or nil
end

local function make_ready(q, member, m)
  call('ZADD', q.b .. 'r', text(m.rank * RANK + m.place), member)
  q.ready = q.ready + 1
  if q.retention then falls_due(q, m.at + q.retention) end
end

-- A message without delay comes in: it is ready, or blocked behind its group.
local function enter(q, member, m)
  if m.group then
    local former = head_of(q, m.group)
    call('ZADD', q.b .. 'g', 0, group_entry(m, member))
    if head_of(q, m.group) ~= member then return end
    if former then call('ZREM', q.b .. 'r', former) end  -- an older one came in by way of a dead letter: that waits
  end
  make_ready(q, member, m)
end

-- It is no longer of its group; whoever was blocked behind it alone is ready.
local function leave_group(q, member, m)
  if not m.group then return end
  local was_head = head_of(q, m.group) == member
  call('ZREM', q.b .. 'g', group_entry(m, member))
  local following = was_head and head_of(q, m.group)
  if not following then return end
  local d = delivery_of(q, following)
  if not d or d[D.state] == READY then
    make_ready(q, following, read(call('HGET', q.b .. 'm', following), following))
  end
end

-- ------------------------------------------------------------------------------------------------------ ends

local function claim_entry(holder, member) return holder .. '\0' .. member end

local function drop_claim(q, member, d)
  if d and d[D.claim] then call('ZREM', q.b .. 'c', claim_entry(d[D.holder] or '', member)) end
end

local function letter_entry(m, member) return string.format('%010d%015d:', m.origin, m.place) .. member end

-- Take a message out of every index but the record of ends.
local function take_out(q, member, m, d, place)
  if place == READY then call('ZREM', q.b .. 'r', member)
  elseif place == LEASED then call('ZREM', q.b .. 'l', member)
  elseif place == DELAYED then call('ZREM', q.b .. 'y', member)
  elseif place == DEAD then
    call('ZREM', q.b .. 'z', member)
    call('ZREM', q.b .. 'zx', member)
    call('ZREM', q.b .. 'u', member)
  end
  call('HDEL', q.b .. 'm', member)
  if d then call('HDEL', q.b .. 'd', member) end
  if m.expires > 0 then call('ZREM', q.b .. 'x', member) end
  if m.origin then call('ZREM', q.b .. 'o', letter_entry(m, member)) end
  drop_claim(q, member, d)
  if place ~= DEAD then leave_group(q, member, m) end
end

-- Keep a record of a message that ends, if its queue or its outcome asks for one.
local function remember(q, member, m, d, how, outcome, holder, tell)
  local keep = q.history
  if outcome then keep = math.max(keep, q.outcome) end
  if keep <= 0 and not tell then return false end
  local life = d and d[D.life] or {}
  if d and d[D.state] == LEASED then
    life[#life + 1] = lease_event(d)
  elseif d and d[D.state] == DELAYED then
    life[#life + 1] = { event = 'delayed', ['until'] = d[D.due] }
  end
  local last = { event = how, at = q.now }
  if holder and holder ~= '' then last.by = holder end
  life[#life + 1] = last
  local record = { m.at, (d and d[D.count] or 0) + (how == 'received' and 1 or 0), m.rank, m.group or false,
                   m.headers or false, life, q.now, how, outcome or false,
                   how == 'acknowledged' and d[D.token] or 0 }
  call('HSET', q.b .. 'e', member, cmsgpack.pack(record))
  if tell then
    call('ZADD', q.b .. 'u', 0, member)
  else
    call('ZADD', q.b .. 'ex', text(q.now + keep), member)
    falls_due(q, q.now + keep)
  end
  return true
end

local function gone(q, member)
  q.ended[#q.ended + 1] = member
end

-- A message of another queue ended here and no record is kept: what leads here from its home leads nowhere.
local function unpoint(q, member)
  if string.find(member, ':', 1, true) then q.left[#q.left + 1] = member end
end

local function finish(q, member, m, d, how, place, outcome, holder, tell)
  if not remember(q, member, m, d, how, outcome, holder, tell) then unpoint(q, member) end
  take_out(q, member, m, d, place)
  gone(q, member)
end

local function place_of(q, member, d)
  if d and d[D.state] ~= READY then return d[D.state] end
  return call('ZSCORE', q.b .. 'r', member) and READY or BLOCKED
end

local function is_over(q, m) return (m.expires > 0 and m.expires <= q.now) or (q.cutoff and m.at <= q.cutoff) end

-- ----------------------------------------------------------------------------------------------------- moves

-- Whoever asked goes on with this move: what there is of it, and when that was looked at.
local function moving(q, member, left)
  q.carried = q.carried + #left
  if #q.moves > 0 and q.carried > MAX_BYTES then return end  -- `expire` finds it
  q.moves[#q.moves + 1] = { member, left, text(q.now) }
end

-- Leaving for another queue: invisible from now on, and kept until it has arrived for certain.
local function leave(q, member, m, raw, d, place, target, kind)
  take_out(q, member, m, d, place)
  local home, number = home_of(member)
  local moved = text(call('HINCRBY', q.b .. 's', 'moved', 1))
  local token = q.number .. ':' .. member .. ':' .. moved
  local packed = cmsgpack.pack({ token, target, kind, home or q.number, number, m.at, m.place, m.rank,
                                 m.group or false, m.headers or false, m.expires, d or fresh() })
  call('HSET', q.b .. 'v', member, struct.pack('>I4', #packed) .. packed .. content_of(m, raw))
  if not home then call('HSET', q.b .. 'away', member, target .. ':' .. moved) end
  moving(q, member, call('HGET', q.b .. 'v', member))
  falls_due(q, q.now)
end

-- After its last delivery a message goes to the dead-letter queue, or stays as dead.
local function die(q, member, m, raw, d)
  q.died[#q.died + 1] = member
  local event = { event = 'dead', at = q.now, reason = 'max_deliveries', deliveries = d[D.count] }
  local claim = d[D.claim]
  if m.expires > 0 then  -- a dead letter is kept for people to look at: its ttl ends with its life
    call('ZREM', q.b .. 'x', member)
    m.expires = 0
    raw = write(m, content_of(m, raw))
    m = read(raw, member)
    call('HSET', q.b .. 'm', member, raw)
  end
  if q.dl then
    event.from, event.to = q.name, q.dlname
    d[D.life] = remember_event(d[D.life], event)
    drop_claim(q, member, d)
    d[D.state], d[D.due], d[D.since], d[D.holder], d[D.claim], d[D.tentative], d[D.base] =
      READY, 0, 0, false, false, false, d[D.count]
    leave(q, member, m, raw, d, LEASED, q.dl, 'letter')
    return
  end
  d[D.life] = remember_event(d[D.life], event)
  drop_claim(q, member, d)
  leave_group(q, member, m)
  call('ZREM', q.b .. 'l', member)
  d[D.state], d[D.due], d[D.since], d[D.holder], d[D.tentative] = DEAD, 0, m.at, false, false
  d[D.claim] = claim
  keep_delivery(q, member, d)
  call('ZADD', q.b .. 'z', text(m.at), member)
  if q.retention then falls_due(q, m.at + q.retention) end
  if claim then call('ZADD', q.b .. 'u', 0, member) end
end

-- A delivery failed: the message is ready again, or delayed, or has had its last chance.
local function end_delivery(q, member, m, raw, d, how, delay, reason, counts, last)
  if d[D.lapsed] or is_over(q, m) then
    finish(q, member, m, d, 'expired', LEASED)
    return
  end
  local forgiven = not last and not counts and d[D.forgiven] < FORGIVEN
  -- Who gives a message back has had it.
  local unseen = how == 'lease_expired' and d[D.tentative] and d[D.unseen] < FORGIVEN
  local event = { event = how, at = q.now }
  if reason and reason ~= '' then event.reason = reason end
  if forgiven or unseen then event.counts = false end
  d[D.life] = remember_event(d[D.life], lease_event(d), event)
  if last or (q.maxdel and not (forgiven or unseen) and d[D.count] - d[D.base] >= q.maxdel) then
    die(q, member, m, raw, d)
    return
  end
  drop_claim(q, member, d)
  call('ZREM', q.b .. 'l', member)
  d[D.since], d[D.holder], d[D.claim], d[D.tentative] = 0, false, false, false
  if forgiven then d[D.count], d[D.forgiven] = d[D.count] - 1, d[D.forgiven] + 1 end
  if unseen then d[D.count], d[D.unseen] = d[D.count] - 1, d[D.unseen] + 1 end
  if delay > 0 then
    d[D.state], d[D.due] = DELAYED, q.now + delay
    call('ZADD', q.b .. 'y', text(d[D.due]), member)
    falls_due(q, d[D.due])
  else
    d[D.state], d[D.due] = READY, 0
    -- A dead letter may have come before it.
    if not m.group or head_of(q, m.group) == member then make_ready(q, member, m) end
  end
  keep_delivery(q, member, d)
end

-- True while this delivery's, or this holder's, lease runs. Only its deadline decides.
local function holds(q, d, delivery, holder)
  if not d or d[D.state] ~= LEASED or d[D.due] <= q.now then return false end
  if holder then return d[D.holder] == holder end
  return d[D.token] == delivery
end
