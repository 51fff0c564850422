-- Reads one allocation, by one of its ports or by its name. Changes nothing.
--
-- KEYS   service HASH, names HASH, ports HASH, labels HASH
-- ARGV   service, port or name
--
-- answer record, with its labels behind it
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND
--
-- Worst case: a further port of a block: about 40 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include labels: with_labels
-- include ports/find: find_allocation

local keys = {service = KEYS[1], names = KEYS[2], ports = KEYS[3], labels = KEYS[4]}
local service, holder = unpack(ARGV)
local now = read_clock()

local port, record, err = find_allocation(keys, now, service, holder)
if err then return redis.error_reply(err) end
return with_labels(keys, port, record)
