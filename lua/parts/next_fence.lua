-- The number of a new allocation. The first of a pool is the time in microseconds, so that they grow even where the state
-- was lost meanwhile.
local function next_fence()
  local number = call('INCR', fence)
  if number == 1 then
    number = now .. '000'
    call('SET', fence, number)
    return number
  end
  return string.format('%d', number)
end
