-- Clears what holds that ran out have left at ports, so many at most of which something is left there: whether that was all.
local tidied = 0 -- so many ports has the script cleared, or gathered
local function clear_all(all, most)
  local cleared = 0
  for first = 1, #all, 250 do
    local some = {unpack(all, first, math.min(first + 249, #all))}
    for i, record in ipairs(call('HMGET', offers, unpack(some))) do
      if record then
        if cleared >= most then return false end
        cleared = cleared + clear(some[i])
        tidied = tidied + 1
      end
    end
  end
  return true
end
