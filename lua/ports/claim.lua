-- Offers and accepts in one call: makes free ports of a service allocations, as many as are asked for: all, or none. Most claims go
-- the short way of claim_any.lua.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        waitlist ZSET, heartbeats ZSET, waitlists ZSET, fence STRING, then of each request: offer STRING (the secret's)
-- ARGV   service, how long a secret of the caller's own is remembered (ms), then as of offer.lua: ticket, to wait or not,
--        and of each request: name, secret, options; last the highest fence of the pool that the server saw, and the highest of all
--
-- answer {request, ...}  of each record where it is a new allocation, {record} where this secret already had it; not in a list
--                     where there is one request
--        0 or less, 1, or 2: as of offer.lua
--        3                   nothing is done: the state is behind
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        and before the detail which request it is, and what of it: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several with | between them; INVALID body detail; only for a secret of the caller's
--        own: INVALID, OFFER_ACCEPTED, OFFER_REJECTED
--
-- At worst, 256 exact ports, of which some are fresh and some given back, for 100 requests with leases and secrets of their
-- own: about 2.1 ms where the usual offer takes 10 us.
local call = redis.call
-- include ports/acquire: acquire, answer_of
-- include ports/allocate: note_allocation, nothing_noted, write_allocations
-- include clock: read_clock
-- include fence: is_behind, next_fence
-- include record: count_of, has_secret, is_live, offer_record
-- include ports/request: check_secret, read_requests
-- include ports/find: find_offer
-- include service: read_service

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], waitlist = KEYS[10], heartbeats = KEYS[11], waitlists = KEYS[12],
  fence = KEYS[13],
}
local now, time = read_clock()
local service, remember, ticket, stay = read_service(keys, now, ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == '1'
local seen, least = ARGV[#ARGV - 1], ARGV[#ARGV]
local requests = read_requests(keys, {unpack(KEYS, 14)}, {unpack(ARGV, 5, #ARGV - 2)})

-- The allocation of a name, if it is this secret's: it is known for as long as it lives. Also its first port, and how many
-- it has.
local function find_claimed(request)
  local port = request.has
  local record = port and call('HGET', keys.ports, port)
  if record and has_secret(record, request.secret) and is_live(record, now) then return record, port, count_of(record) end
end

-- What is known of a request.
local function look_at(request)
  if not request.own then return 'missing' end
  local state, record, holder, port, count, _, lease = find_offer(keys, now, service.name, request.offer, request.secret)
  if not state then
    record, port, count = find_claimed(request)
    if record then state, holder = 'accepted', request.name end
  end
  local wrong = check_secret(request, state, holder, port, count)
  if wrong then return 'refused', wrong end
  if state == 'accepted' then return 'done', record end
  if state ~= 'open' then return 'missing' end
  request.port, request.count, request.lease, request.kept = port, count, request.lease or lease, true
  return 'held' -- its offer is half of what is asked for
end

local total, most = 0, 256 -- ports of one call
local function resolve(request)
  local status, value = look_at(request)
  total = total + request.count
  if status ~= 'refused' and total > most then
    return 'refused', 'INVALID body asks for more than ' .. most .. ' ports'
  end
  return status, value
end

local function may_grant()
  return is_behind(call('GET', keys.fence), seen, time) and 'behind' or nil
end

-- Remembers a claim like an accepted offer, which may not be made again; a mere claim may.
local function remember_claim(request)
  local expires = string.format('%d', now + remember)
  local record = offer_record(service.name, request.name, request.port, request.count, now, expires, nil, request.secret,
    not request.kept and 'claimed')
  call('SET', request.offer, record, 'PX', remember)
end

local function write(unwritten, answers)
  local fence, noted = next_fence(keys.fence, time, #unwritten, seen, least), nothing_noted()
  for i, request in ipairs(unwritten) do
    local ends = request.lease and string.format('%d', now + request.lease)
    answers[request.index + 1] = note_allocation(noted, request.name, request.port, request.count, now,
      i == 1 and fence or string.format('%d', fence + i - 1), request.lease, ends, request.secret, not request.kept)
    if request.own then remember_claim(request) end
  end
  write_allocations(keys, noted)
end

local group = {requests = requests, ticket = ticket, stay = stay}
return answer_of(acquire(keys, service, group, resolve, write, may_grant))
