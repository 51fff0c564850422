-- What of the service decides who gets a port: its cool-down (ms), nil where there is no such service, and whether somebody
-- waits in line. `rested` is the score up to which a port is free: its cool-down is over.
local cooldown, waiting = unpack(call('HMGET', service_key, 'cooldown', 'waiting'))
local rested = now
if cooldown and cooldown ~= '0' then rested = string.format('%d', now - cooldown) end
