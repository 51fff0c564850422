-- Releases an allocation: its name is free at once, its ports after the cooldown. Ports that are still in use rest
-- first. Most calls take the short path of release_plain.lua.
--
-- KEYS   service HASH, free ZSET, names HASH, ports HASH, waitlist ZSET, offers HASH, leases ZSET, resting ZSET,
--        fresh ZSET, run_lengths ZSET, heartbeats ZSET, waitlists ZSET, offer STRING (of the secret), events STREAM,
--        labels HASH, rest HASH; of an owner: owned ZSET
-- ARGV   events, request, service, the secret that the allocation must have ('': any), how long the ports rest that
--        are still in use (ms; '': they are not), port or name, then the fences of which it must have one (one of '':
--        any); of an owner, last: owner, '1' if without the secret the allocation must be its
--
-- answer 1  released
--        0  it was released already with this secret, a short while ago
--        {'owner', owner}  nothing was changed: call it again with the key of this owner, whose allocation it is
-- errors SERVICE_NOT_FOUND, PORT_NOT_FOUND, SECRET_MISMATCH, PRECONDITION_FAILED, NOT_OWNER
--
-- Worst case: a leased block of 100 ports while 256 positions were lost: about 600 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include drains: is_draining, parse_drains
-- include history: add_event
-- include owner: check_owner, disown_ports
-- include ports/find: find_allocation, find_offer
-- include ports/notify_lazily: notify_of_return
-- include record: offer_record, parse_allocation
-- include resting: let_rest, note_rest

local keys = {
  service = KEYS[1], free = KEYS[2], names = KEYS[3], ports = KEYS[4], waitlist = KEYS[5], offers = KEYS[6],
  leases = KEYS[7], resting = KEYS[8], fresh = KEYS[9], run_lengths = KEYS[10], heartbeats = KEYS[11],
  waitlists = KEYS[12], offer = KEYS[13], events = KEYS[14],
  labels = KEYS[15], rest = KEYS[16], owned = KEYS[17],
}
local must_own, owner = keys.owned and table.remove(ARGV), keys.owned and table.remove(ARGV)
local service, secret, rest, holder = unpack(ARGV, 3, 6)
local now = read_clock()

if secret ~= '' then
  local state, _, name, port, count = find_offer(keys, now, service, keys.offer, secret)
  if state == 'released' then
    local at = string.find(holder, '^[1-9]%d*$') and holder - port
    local is_named = holder == name and not string.find(holder, '^%d+$')
    if is_named or at and at >= 0 and at < count then return 0 end
  end
end

local port, allocation, err = find_allocation(keys, now, service, holder)
if err then return redis.error_reply(err) end
local name, count, fence, lease, its_secret, _, its_owner, labels = parse_allocation(allocation)
if secret ~= '' and secret ~= its_secret then
  return redis.error_reply('SECRET_MISMATCH the allocation of ' .. holder .. ' has another secret')
end
local refusal = check_owner(its_owner, owner, secret == '' and must_own or '0', 'port ' .. port)
if refusal then return refusal end
local matches = ARGV[7] == ''
for i = 7, #ARGV do
  matches = matches or ARGV[i] == fence
end
if not matches then
  return redis.error_reply('PRECONDITION_FAILED port ' .. port .. ' has fence ' .. fence .. ' by now')
end

local all, scores = {port}, {now, port}
for i = 1, count - 1 do
  all[i + 1] = string.format('%d', port + i)
  scores[2 * i + 1], scores[2 * i + 2] = now, all[i + 1]
end
call('HDEL', keys.ports, unpack(all)) -- first, since a full Redis does not refuse it; see parts/full_redis.lua
call('ZADD', keys.free, unpack(scores))
if rest ~= '' and rest ~= '0' then
  -- What the holder used cools down as well, at the same time. Ports that drain rest without the service.
  local cooldown, drains = unpack(call('HMGET', keys.service, 'cooldown', 'drains'))
  local _, _, draining = parse_drains(drains)
  local until_then = string.format('%d', now + math.max(tonumber(rest), tonumber(cooldown)))
  local resting, until_of, noted = {}, {}, {}
  for _, each in ipairs(all) do
    local of = is_draining(draining, each) and noted or until_of
    of[#of + 1], of[#of + 2] = each, until_then
    if of == until_of then resting[#resting + 1] = each end
  end
  if #resting > 0 then call('ZREM', keys.free, unpack(resting)) end
  let_rest(keys, until_of)
  note_rest(keys, noted)
end
if lease then
  call('HDEL', keys.offers, unpack(all))
  call('ZREM', keys.leases, unpack(all))
end
call('HDEL', keys.names, name)
if labels then call('HDEL', keys.labels, port) end
if its_owner then disown_ports(keys, now, port, count) end
local ends = lease and string.match(allocation, '"expires":(%d+)')
add_event(keys.events, 'released', name, port, count, fence, its_owner, ends)
if rest ~= '' then add_event(keys.events, 'in_use', name, port, count, nil, its_owner) end
if secret ~= '' then -- a repeated call gets the same answer, and releases no later allocation
  local expires = string.format('%d', now + 60000)
  local record = offer_record(service, name, port, count, now, expires, nil, secret, 'released', its_owner)
  call('SET', keys.offer, record, 'PX', '60000')
end
if call('EXISTS', keys.waitlist) == 1 then notify_of_return(keys, now, service, port, count) end
return 1
