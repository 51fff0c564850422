-- The clock of every script: Redis's own, read once. `now` is Unix milliseconds, as a string.
local time = call('TIME')
local now = time[1] .. string.sub('00000' .. time[2], -6, -4)
