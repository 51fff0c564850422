-- The number of a new allocation: the time in microseconds, or the one after the last of the pool where that is as late. So they
-- grow, even where the last ones, or all of the state, were lost meanwhile.
local last_fence
local function next_fence()
  local at = time[1] .. string.sub('00000' .. time[2], -6)
  last_fence = last_fence or call('SET', fence, at, 'GET')
  if not last_fence or tonumber(last_fence) < tonumber(at) then
    last_fence = at
    return at
  end
  last_fence = string.format('%d', last_fence + 1)
  call('SET', fence, last_fence)
  return last_fence
end
