-- Reads one allocation, by one of its ports or by its holder's name. Changes nothing.
--
-- KEYS   service HASH, names HASH, ports HASH
-- ARGV   service, port or name
--
-- answer record
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND
--
-- At worst a further port of a block: about 40 us where an offer takes 10 us.
local service_key, names, ports = KEYS[1], KEYS[2], KEYS[3]
local service, holder = ARGV[1], ARGV[2]
local call = redis.call
-- include clock
-- include find

return allocation
