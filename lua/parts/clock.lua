local call = redis.call

-- Redis's own clock, which a script reads once: Unix milliseconds, as a string, and {seconds, microseconds}.
local function read_clock()
  local time = call('TIME')
  return time[1] .. string.sub('00000' .. time[2], -6, -4), time
end

-- The time in Unix microseconds, as a string.
local function microseconds(time)
  return time[1] .. string.sub('00000' .. time[2], -6)
end

return read_clock, microseconds
