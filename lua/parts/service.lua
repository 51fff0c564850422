-- What of the service decides who gets a port: its cool-down (ms), nil where there is no such service; whether somebody waits
-- in line; when the first of its resting ports is free again; and what of a change is under way (see settle.lua).
-- `free_before` is the score up to which a port is free: its cool-down is over.
local cooldown, waiting, rests, changing = unpack(call('HMGET', service_key, 'cooldown', 'waiting', 'rests', 'changing'))
local free_before = now
if cooldown and cooldown ~= '0' then free_before = string.format('%d', now - cooldown) end
