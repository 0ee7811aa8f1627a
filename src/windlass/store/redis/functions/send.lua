-- send: plain messages of many requests, contiguous each.
-- args: time, server, n, n sizes of requests, all contents
-- answer: for each request its first place, or {'full', length}, or {'large', bytes}
writers.send = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local requests, at = tonumber(args[3]), 4 + tonumber(args[3])
  local answers, contents = {}, {}
  local held = q.maxlen and length(q)
  for n = 1, requests do
    local amount = tonumber(args[3 + n])
    local largest = 0
    for i = at, at + amount - 1 do largest = math.max(largest, #args[i]) end
    if largest > q.maxbytes then
      answers[n] = { 'large', largest }
    elseif held and held + amount > q.maxlen then
      answers[n] = { 'full', held }
    else
      answers[n] = #contents
      for i = at, at + amount - 1 do contents[#contents + 1] = args[i] end
      if held then held = held + amount end
    end
    at = at + amount
  end
  if #contents > 0 then
    local first = places(q, #contents)
    local head = 'P' .. struct.pack('>I6', q.now)
    local records, ready = {}, {}
    for n, content in ipairs(contents) do
      local place = first + n - 1
      local member = text(place)
      records[2 * n - 1], records[2 * n] = member, head .. content
      ready[2 * n - 1], ready[2 * n] = text(9 * RANK + place), member
    end
    in_pieces(records, 2000, function(...) call('HSET', q.b .. 'm', ...) end)
    in_pieces(ready, 2000, function(...) call('ZADD', q.b .. 'r', ...) end)
    q.ready = #contents
    if q.retention then falls_due(q, q.now + q.retention) end
    rate(q, 'i', #contents)
    for n = 1, requests do
      if type(answers[n]) == 'number' then answers[n] = text(first + answers[n]) end
    end
  end
  return close(q, answers)
end
