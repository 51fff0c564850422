-- Corrects what lies in the future since Redis's clock stepped back: ports of a service that were released look as if
-- they were on offer, and ports rest too long. Offers and leases end when their holders were told.
--
-- KEYS   service HASH, free ZSET, offers HASH, ports HASH, leases ZSET, resting ZSET, rest HASH, waitlist ZSET,
--        heartbeats ZSET, waitlists ZSET
-- ARGV   service, how many of the ports in the future to skip, by how many ms the clock stepped, how long a port
--        rests that was found in use (ms)
--
-- answer {corrected, next}  how many ports it corrected, and how many to skip in the next call; -1 if those were all
-- errors none
--
-- Worst case: 250 ports that were released, and 250 that rest, while 256 positions were lost: about 1 ms (an offer
-- takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include drains: parse_drains, set_drains
-- include full_redis: write_though_full
-- include record: count_of
-- include resting: let_rest
-- include service: read_service
-- include waitlist: notify_of_ports

local keys = {
  service = KEYS[1], free = KEYS[2], offers = KEYS[3], ports = KEYS[4], leases = KEYS[5], resting = KEYS[6],
  rest = KEYS[7], waitlist = KEYS[8], heartbeats = KEYS[9], waitlists = KEYS[10],
}
local skip, step, quarantine = ARGV[2], ARGV[3], ARGV[4]
local now = read_clock()
local service = read_service(keys, now, ARGV[1])
if not service.cooldown then return {0, -1} end

local ahead = call('ZRANGEBYSCORE', keys.free, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', skip, '250')
local all, score_of, is_held = {}, {}, {}
for i = 1, #ahead, 2 do
  all[#all + 1] = tonumber(ahead[i])
  score_of[tonumber(ahead[i])] = ahead[i + 1]
end

-- Notes that the ports of a record are held. The ports of an offered block have the score of the first, which has the
-- record.
local function hold(port, record, score)
  is_held[port] = true
  for i = 1, count_of(record) - 1 do
    is_held[port + i] = is_held[port + i] or score_of[port + i] == score
  end
end

if #all > 0 then
  for i, record in ipairs(call('HMGET', keys.offers, unpack(all))) do
    if record then hold(all[i], record, score_of[all[i]]) end
  end
end

-- The block of a port may begin with one that is not among these.
local first, before = {}, {}
for _, port in ipairs(all) do
  if not is_held[port] and not score_of[port - 1] then
    first[#first + 1] = port
    before[#before + 1] = port - 1
  end
end
if #first > 0 then
  for i, score in ipairs(call('ZMSCORE', keys.free, unpack(before))) do
    local port = first[i]
    if score == score_of[port] then
      local some = {}
      for back = 1, 99 do some[back] = port - back end
      for back, record in ipairs(call('HMGET', keys.offers, unpack(some))) do
        if record and record ~= 'leased' then
          hold(port - back, record, score)
          break
        end
      end
    end
  end
end

local released = {}
for _, port in ipairs(all) do
  if not is_held[port] then
    released[#released + 1] = now
    released[#released + 1] = port
  end
end
local longest = string.format('%d', now + math.max(quarantine, service.cooldown))
local late = call('ZRANGEBYSCORE', keys.resting, '(' .. longest, string.format('%d', longest + step),
  'LIMIT', '0', '250')
local until_of = {}
for i, port in ipairs(late) do until_of[2 * i - 1], until_of[2 * i] = port, longest end
write_though_full(keys.offers)
if #released > 0 then call('ZADD', keys.free, unpack(released)) end
let_rest(keys, until_of)
if service.drains then -- holds that ended since the step have scores before SWEPT
  local count, _, ranges = parse_drains(service.drains)
  set_drains(keys, service, count, 0, ranges)
end
local corrected = #released / 2 + #late
if service.waiting and corrected > 0 then notify_of_ports(keys, service, math.huge) end
if #all < 250 and #late < 250 then return {corrected, -1} end
return {corrected, skip + #all - #released / 2}
