-- Recalls whether the state in Redis is the one that a server knew, and marks it where it is not. A store that was emptied,
-- or replaced by an empty one, has no mark, or one that a newer server has set on it since.
--
-- KEYS   deployment STRING
-- ARGV   the id of the state that the server knew ('' where it has just started), an id for a new one
--
-- answer {id, state}
--   'kept'       it is the state that the server knew, or one that it sees for the first time
--   'lost'       some server knew another state than this one; nobody has recovered it yet
--   'recovered'  an operator has recovered it since
-- errors none
local deployment = KEYS[1]
local known, new = ARGV[1], ARGV[2]
local call = redis.call
-- include clock

local function mark(id, state)
  call('SET', deployment, '{"id":"' .. id .. '","since":' .. now .. ',"state":"' .. state .. '"}')
  return {id, state}
end

local found = call('GET', deployment)
if not found then return known == '' and mark(new, 'kept') or mark(known, 'lost') end
local id, state = string.match(found, '^{"id":"([^"]+)","since":%d+,"state":"([^"]+)"}$')
if state == 'kept' and known ~= '' and known ~= id then return mark(id, 'lost') end
return {id, state}
