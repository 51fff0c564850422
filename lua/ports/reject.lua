-- Rejects an offer: its ports and its name are free at once. Ports that were found in use rest first.
--
-- KEYS   service HASH, free ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET, rest HASH,
--        fresh ZSET, run_lengths ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH,
--        last HASH, offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   events, request, service, secret, how long the ports rest that were found in use (ms; '': they were not);
--        of an owner: owner, '1' if the offer must be its
--
-- answer 1  rejected
--        0  it was rejected already
--        {'owner', owner}  nothing was changed: call it again with the key of this owner, whose offer it is
-- errors SERVICE_NOT_FOUND, OFFER_NOT_FOUND, OFFER_ACCEPTED, NOT_OWNER
--
-- Worst case: a block of 100 ports while 256 positions were lost: about 600 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include drains: is_draining, parse_drains
-- include history: add_event
-- include owner: check_owner, disown_ports
-- include ports/by_name: cooling_since
-- include ports/find: find_offer, no_offer
-- include ports/notify_lazily: notify_of_return
-- include record: has_labels, mark_offer
-- include resting: let_rest, note_rest

local keys = {
  service = KEYS[1], free = KEYS[2], names = KEYS[3], offers = KEYS[4], ports = KEYS[5], leases = KEYS[6],
  resting = KEYS[7], rest = KEYS[8], fresh = KEYS[9], run_lengths = KEYS[10], waitlist = KEYS[11],
  heartbeats = KEYS[12], waitlists = KEYS[13], events = KEYS[14], labels = KEYS[15], last = KEYS[16],
  offer = KEYS[17], owned = KEYS[18],
}
local service, secret, rest, owner, must_own = unpack(ARGV, 3)
local now = read_clock()

local state, record, name, port, count, expires, _, its_owner =
  find_offer(keys, now, service, keys.offer, secret)
local refusal = check_owner(its_owner, owner, must_own, 'the offer')
if refusal then return refusal end
if state == 'rejected' then return 0 end
if state == 'accepted' then return redis.error_reply('OFFER_ACCEPTED this offer was accepted already') end
if state ~= 'open' then return redis.error_reply(no_offer(keys, service)) end

-- No holder has used these ports, so they need no cooldown: with this score it is over. Those that were offered to
-- their last holder while they cooled down go on cooling down. Ports that drain are found by the time at which their
-- holds ended, and rest without the service.
local cooldown, by_name, drains = unpack(call('HMGET', keys.service, 'cooldown', 'pick', 'drains'))
local _, _, draining = parse_drains(drains)
local rests, every, scores, all, until_of, noted = rest ~= '' and rest ~= '0', {}, {}, {}, {}, {}
for i = 1, count do every[i] = string.format('%d', port + i - 1) end
local since = by_name and cooling_since(keys, every) or {}
for i, each in ipairs(every) do
  local drains_here, score = is_draining(draining, each), math.max(now - cooldown, since[i] or 0)
  local until_then = string.format('%d', math.max(now + (tonumber(rest) or 0), score + cooldown))
  if rests and not drains_here then
    all[#all + 1] = each
    until_of[#until_of + 1], until_of[#until_of + 2] = each, until_then
  else
    scores[#scores + 1], scores[#scores + 2] = drains_here and now or string.format('%d', score), each
    if rests then noted[#noted + 1], noted[#noted + 2] = each, until_then end
  end
end
call('HDEL', keys.names, name) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
call('HDEL', keys.offers, port)
if has_labels(record) then call('HDEL', keys.labels, port) end
if its_owner then disown_ports(keys, now, port, count) end
if #scores > 0 then call('ZADD', keys.free, unpack(scores)) end
if #all > 0 then call('ZREM', keys.free, unpack(all)) end
let_rest(keys, until_of)
note_rest(keys, noted)
-- A repeated call gets the same answer for a minute, or for the rest of the offer's time.
local remembered = math.min(expires - now, 60000)
call('SET', keys.offer, mark_offer(record, 'rejected'), 'PX', string.format('%d', remembered))
if rest ~= '' then add_event(keys.events, 'in_use', name, port, count, nil, its_owner) end
if call('EXISTS', keys.waitlist) == 1 then notify_of_return(keys, now, service, port, count) end
return 1
