-- Holds open offers against the keys of their secrets. Changes nothing: an offer ends by itself.
--
-- KEYS   offers HASH, then of each offer: offer STRING (the secret's)
-- ARGV   of each offer: port, secret
--
-- answer {finding, ...}  as of check_ports.lua: offer_key, the key lacks the offer, so nobody can accept it
-- errors none
--
-- At worst 250 offers: about 400 us where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include record: has_secret, is_live, name_of

local keys = {offers = KEYS[1]}
local now = read_clock()
local findings = {}
for i, key in ipairs({unpack(KEYS, 2)}) do
  local port, secret = ARGV[2 * i - 1], ARGV[2 * i]
  local record, known = call('HGET', keys.offers, port), call('GET', key)
  if record and has_secret(record, secret) and is_live(record, now) and known ~= record then
    local what = known and 'the key of its secret says otherwise' or 'the key of its secret is gone'
    findings[#findings + 1] = {'offer_key', port, name_of(record) .. ' is offered the port, but ' .. what, '0'}
  end
end
return findings
