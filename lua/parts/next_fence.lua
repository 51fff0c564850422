-- The first of the numbers of so many new allocations: the time in microseconds, or the one after the last of the pool where that
-- is as late. So they grow, even where the last ones, or all of the state, were lost meanwhile.
local function next_fence(count)
  local at = time[1] .. string.sub('00000' .. time[2], -6)
  local last, first = call('SET', fence, at, 'GET'), tonumber(at)
  local is_late = last and tonumber(last) >= first
  if is_late then first = tonumber(last) + 1 end
  if is_late or count > 1 then call('SET', fence, string.format('%d', first + count - 1)) end
  return first
end
