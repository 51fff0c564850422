-- Declares the state in Redis to be the one that counts from now on, whatever was there before.
--
-- KEYS   deployment STRING
-- ARGV   an id for it
--
-- answer the state of before as of recall.lua, '' where there was none
-- errors none
local deployment = KEYS[1]
local id = ARGV[1]
local call = redis.call
-- include clock

local found = call('GET', deployment)
call('SET', deployment, '{"id":"' .. id .. '","since":' .. now .. ',"state":"recovered"}')
return found and string.match(found, '"state":"([^"]+)"') or ''
