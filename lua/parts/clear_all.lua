-- Clears what holds that ran out have left at ports, 100 at most of which something is left there: whether that was all.
local function clear_all(all)
  local cleared = 0
  for first = 1, #all, 250 do
    local some = {unpack(all, first, math.min(first + 249, #all))}
    for i, record in ipairs(call('HMGET', offers, unpack(some))) do
      if record then
        if cleared >= 100 then return false end
        cleared = cleared + clear(some[i])
      end
    end
  end
  return true
end
