-- stats: args: time, server
-- answer: settings as JSON, '1' where it is paused, when it was created, messages ready, leased, delayed, dead and
--         blocked, and the seconds and counts of `t`
verbs.stats = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local function count(key) return call('ZCARD', q.b .. key) end
  local ready, leased, delayed, dead = count('r'), count('l'), count('y'), count('z')
  local moving = call('HLEN', q.b .. 'v')
  local s = call('HMGET', keys[1], 'json', 'paused', 'created')
  return { s[1], s[2], s[3], ready, leased, delayed, dead + moving, length(q) - ready - leased - delayed - dead,
           call('HGETALL', q.b .. 't'), text(q.now) }
end

-- ready: how many messages may be received. args: time, server
verbs.ready = function(keys)
  if call('HGET', keys[1], 'paused') == '1' then return 0 end
  return call('ZCARD', string.sub(keys[1], 1, -2) .. 'r')
end

-- counts: what several queues hold together. Where they lie on one server that is one call, of the registry.
-- args: time, server, numbers of queues (none: the one whose key it is)
-- answer: how many queues there are, and messages ready, leased, delayed, dead and blocked
verbs.counts = function(keys, args)
  local queues, ready, leased, delayed, dead, blocked = 0, 0, 0, 0, 0, 0

  local function add(base)
    local all, moving = call('HLEN', base .. 'm'), call('HLEN', base .. 'v')
    if all + moving == 0 and call('EXISTS', base .. 's') == 0 then return end
    queues, dead = queues + 1, dead + moving
    if all == 0 then return end
    local r, l = call('ZCARD', base .. 'r'), call('ZCARD', base .. 'l')
    local y, z = call('ZCARD', base .. 'y'), call('ZCARD', base .. 'z')
    ready, leased, delayed, dead, blocked = ready + r, leased + l, delayed + y, dead + z, blocked + all - r - l - y - z
  end

  if #args == 2 then add(string.sub(keys[1], 1, -2)) end
  local prefix = string.match(keys[1], '^(.*):{[^{}]*}:s$')
  for n = 3, #args do add(prefix .. ':{' .. args[n] .. '}:') end
  return { queues, ready, leased, delayed, dead, blocked }
end
