-- Whether an allocation, or an offer, is still there: it has no lease, or its time has not run out.
local function lives(record)
  local at = string.find(record, '"expires":', 1, true)
  return not at or tonumber(now) < tonumber(string.match(record, '%d+', at))
end
