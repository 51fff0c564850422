-- The mark of a state: its id, whether it is 'kept' or 'lost', and the ids of the states that servers missed when it took their
-- place.
local function read_mark()
  local found = call('GET', deployment)
  if not found then return nil end
  local id, state = string.match(found, '^{"id":"([^"]+)","since":%d+,"state":"([^"]+)"')
  return id, state, string.match(found, '"missed":"([^"]*)"') or ''
end

local function mark(id, state, missed)
  call('SET', deployment, '{"id":"' .. id .. '","since":' .. now .. ',"state":"' .. state .. '","missed":"' .. missed .. '"}')
  return {id, state}
end
