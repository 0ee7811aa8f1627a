-- page: what an index leads to, in its order: for whoever reads all of a queue.
-- args: time, server, index, hash whose fields its members are, how many are passed by, how many at most, '' for
--       those without what follows a message's head
-- answer: {how many were looked at, for each {member, score, what the hash holds, its deliveries, when it is forgotten}};
--         of 'g' only those that are blocked; members without a value are left out
local PAGE_BYTES = 4 * 1024 * 1024

local function head_only(raw)
  if string.byte(raw) == 80 then return string.sub(raw, 1, 7) end
  return string.sub(raw, 1, 9 + struct.unpack('>I2', raw, 8))
end

verbs.page = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local index, hash, at, limit = args[3], args[4], tonumber(args[5]), tonumber(args[6])
  local found = call('ZRANGE', q.b .. index, at, at + limit - 1, 'WITHSCORES')
  local seen, size, answer = 0, 0, {}
  for n = 1, #found, 2 do
    seen = seen + 1
    local member, packed, blocked = found[n], '', true
    if index == 'g' then
      member = string.sub(member, 4 + tonumber(string.sub(member, 1, 4), 16) + 17)
      local d = delivery_of(q, member)
      blocked = (not d or d[D.state] == READY) and not call('ZSCORE', q.b .. 'r', member)
    end
    local value = blocked and call('HGET', q.b .. hash, member)
    if value then
      if hash == 'm' then
        packed = call('HGET', q.b .. 'd', member) or ''
        if args[7] == '' then value = head_only(value) end
      end
      answer[#answer + 1] = { member, found[n + 1], value, packed,
                              index == 'z' and call('ZSCORE', q.b .. 'zx', member) or '' }
      size = size + #value
      if size > PAGE_BYTES then break end
    end
  end
  return { seen, answer }
end
