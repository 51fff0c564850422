local call = redis.call

-- Reads Redis's clock, which a script does once: Unix milliseconds and Unix microseconds, as strings.
local function read_clock()
  local time = call('TIME')
  local microseconds = time[1] .. string.sub('00000' .. time[2], -6)
  return string.sub(microseconds, 1, -4), microseconds
end
