-- send_with: messages with options, or under an Idempotency-Key; all or none.
-- args: time, server, key ('': none), fingerprint, then for each message its content and its options, an array of
--       delay, ttl, priority, group, dedup id and headers (false: none), as MessagePack
-- answer: {'sent', places, duplicates}, {'full', length}, {'large', bytes}, {'reused'} or {'many'}
writers.send_with = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local key, known = args[3], nil
  if key ~= '' then
    known = call('HGET', q.b .. 'an', key)
    if known then
      local answered = cmsgpack.unpack(known)
      if answered[4] > q.now then
        if answered[1] ~= args[4] then return close(q, { 'reused' }) end
        return close(q, { 'sent', answered[2], answered[3] })
      end
    elseif call('HLEN', q.b .. 'an') >= MAX_ANSWERS then
      return close(q, { 'many' })
    end
  end
  local amount = (#args - 4) / 2
  local options, new, ids = {}, amount, {}
  local function known_place(id)
    local found = id and call('HGET', q.b .. 'dd', id)
    if not found then return nil end
    local place, untl = string.match(found, '^(%d+) (%d+)$')
    return tonumber(untl) > q.now and place or nil
  end
  for n = 1, amount do
    local content = args[3 + 2 * n]
    if #content > q.maxbytes then return close(q, { 'large', #content }) end
    options[n] = cmsgpack.unpack(args[4 + 2 * n])
    local id = options[n][5]
    if id and q.dedup > 0 then
      if ids[id] or known_place(id) then new = new - 1 end
      ids[id] = true
    end
  end
  if q.maxlen and new > 0 and length(q) + new > q.maxlen then return close(q, { 'full', length(q) }) end
  local places_of, duplicates = {}, {}
  local next_place = new > 0 and places(q, new) or 0
  for n = 1, amount do
    local delay, ttl, priority, group, id, headers = unpack(options[n], 1, 6)
    local member = known_place(id)
    duplicates[n] = member and 1 or 0
    if not member then
      member = text(next_place)
      local m = { at = q.now, place = next_place, rank = 9 - priority, group = group or nil, headers = headers or nil,
                  expires = ttl and q.now + ttl or 0 }
      next_place = next_place + 1
      call('HSET', q.b .. 'm', member, write(m, args[3 + 2 * n]))
      if m.expires > 0 then
        call('ZADD', q.b .. 'x', text(m.expires), member)
        falls_due(q, m.expires)
      end
      if id and q.dedup > 0 then
        local untl = text(q.now + q.dedup)
        call('HSET', q.b .. 'dd', id, member .. ' ' .. untl)
        call('ZADD', q.b .. 'ddx', untl, id)
        falls_due(q, q.now + q.dedup)
      end
      if delay > 0 then
        local d = fresh()
        d[D.state], d[D.due] = DELAYED, q.now + delay
        keep_delivery(q, member, d)
        call('ZADD', q.b .. 'y', text(d[D.due]), member)
        falls_due(q, d[D.due])
        if m.group then call('ZADD', q.b .. 'g', 0, group_entry(m, member)) end
      else
        enter(q, member, m)
      end
    end
    places_of[n] = member
  end
  rate(q, 'i', new)
  if key ~= '' then
    local untl = q.now + ANSWER_KEPT
    call('HSET', q.b .. 'an', key, cmsgpack.pack({ args[4], places_of, duplicates, untl }))
    call('ZADD', q.b .. 'anx', text(untl), key)
    falls_due(q, untl)
  end
  return close(q, { 'sent', places_of, duplicates })
end
