-- What there is of a message here: 'living'; 'moving', on its way to another queue; 'away', and the pointer; 'ended',
-- and a record is kept; or 'none'.
local function known(q, member)
  if call('HEXISTS', q.b .. 'm', member) == 1 then return 'living' end
  if call('HEXISTS', q.b .. 'v', member) == 1 then return 'moving' end
  local away = call('HGET', q.b .. 'away', member)
  if away then return 'away', away end
  if call('HEXISTS', q.b .. 'e', member) == 1 and tonumber(call('ZSCORE', q.b .. 'ex', member) or 'inf') > q.now then
    return 'ended'
  end
  return 'none'
end

-- where: what there is of a message here, without all that is known of it.
-- args: time, server, member
-- answer: as `known` has it
verbs.where = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  return { known(q, args[3]) }
end

-- nowhere: those of these messages of which there is nothing here. args: time, server, members
verbs.nowhere = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local found = {}
  for n = 3, #args do if known(q, args[n]) == 'none' then found[#found + 1] = args[n] end end
  return found
end

-- find: all that is known of a message.
-- args: time, server, member
-- answer: {'living', state, what never changes, deliveries}, {'ended', record}, or else as `where` has it
verbs.find = function(keys, args)
  local q = open(keys, args)
  if not q then return NONE end
  local member = args[3]
  local word, away = known(q, member)
  if word == 'living' then
    local d = delivery_of(q, member)
    return { word, place_of(q, member, d), call('HGET', q.b .. 'm', member), d and call('HGET', q.b .. 'd', member) or '' }
  end
  if word == 'ended' then return { word, call('HGET', q.b .. 'e', member) } end
  return { word, away }
end
