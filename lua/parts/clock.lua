local call = redis.call

-- Redis's own clock, which a script reads once: Unix milliseconds, as a string, and {seconds, microseconds}.
local function read_clock()
  local time = call('TIME')
  return time[1] .. string.sub('00000' .. time[2], -6, -4), time
end

return read_clock
