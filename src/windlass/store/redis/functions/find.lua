-- find: all that is known of a message.
-- args: time, server, member
-- answer: {'living', state, what never changes, deliveries}, {'ended', record}, {'away', number of a queue}, or {'none'}
verbs.find = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local raw = call('HGET', q.b .. 'm', member)
  if raw then
    local d = delivery_of(q, member)
    return { 'living', place_of(q, member, d), raw, d and call('HGET', q.b .. 'd', member) or '' }
  end
  if call('HEXISTS', q.b .. 'v', member) == 1 then return { 'moving' } end
  local away = call('HGET', q.b .. 'away', member)
  if away then return { 'away', away } end
  local record = call('HGET', q.b .. 'e', member)
  if record and tonumber(call('ZSCORE', q.b .. 'ex', member) or 'inf') > q.now then return { 'ended', record } end
  return { 'none' }
end
