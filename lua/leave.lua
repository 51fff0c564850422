-- Takes a call out of the line.
--
-- KEYS   service HASH, line ZSET, beats ZSET
-- ARGV   ticket
--
-- answer 1
-- errors none
local service_key, line, beats = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
-- include leave

leave({ARGV[1]})
return 1
