-- The clock of every script: Redis's own, read once. `now` is Unix milliseconds, as a string.
local time = redis.call('TIME')
local now = string.format('%d%03d', time[1], math.floor(time[2] / 1000))
