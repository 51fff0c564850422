-- Reads one service, and counts its ports. Changes nothing.
--
-- KEYS   service HASH, free ZSET, ports HASH
-- ARGV   service
--
-- answer service as of describe.lua
-- errors SERVICE_NOT_FOUND
local service_key, free, ports = KEYS[1], KEYS[2], KEYS[3]
local service = ARGV[1]

return describe(service_key, free, ports) or redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
