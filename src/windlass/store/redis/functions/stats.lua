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
