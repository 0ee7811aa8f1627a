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
