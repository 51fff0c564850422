-- Claims ports of a service for the instance names of one call: offers and accepts them in one step, all that it
-- requests, or none. Most calls take the short path of claim_any.lua.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET, fence STRING, events STREAM,
--        labels HASH, last HASH, then of each request: offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   events, request, service, how long a secret that the client supplied is remembered (ms), then as in
--        offer.lua: ticket, '1' to wait, of each request name, secret and options, and of an owner: owner, and how
--        many ports it may hold; last the highest fence of the pool that the server saw, and the highest of all pools
--
-- answer {request, ...}    of each request the record of a new allocation, or {record} if this secret has it already,
--                          or another and an existing one will do, with its labels behind it; of a single request its
--                          record or {record} alone
--        0 or less, 1, 2   as in offer.lua
--        3                 nothing was changed: this is an older state
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port becomes free by itself, or -1
--        with the request and its field before the detail: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several requests with | between them; INVALID body detail
--        only for a secret that the client supplied: INVALID, OFFER_ACCEPTED, OFFER_REJECTED, NOT_OWNER; an open
--        offer is only accepted for its own owner
--        only for an owner: QUOTA_EXCEEDED
--
-- Worst case: 256 exact ports, some fresh and some given back, for 100 requests with leases and secrets of the
-- client: about 2.1 ms, with a history 2.4 ms (the usual offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include fence: is_behind, next_fence
-- include history: add_event
-- include labels: write_labels
-- include owner: add_holds, own_ports
-- include ports/acquire: acquire, answer_of
-- include ports/allocate: add_allocation, new_allocations, write_allocations
-- include ports/check_requests: check_secret
-- include ports/find: find_offer
-- include ports/read_requests: read_requests
-- include record: count_of, has_labels, has_secret, is_live, offer_record, owner_of
-- include service: read_service

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], waitlist = KEYS[10], heartbeats = KEYS[11],
  waitlists = KEYS[12], fence = KEYS[13], events = KEYS[14], labels = KEYS[15], last = KEYS[16],
}
local remember, ticket, stay, seen, least = ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[#ARGV - 1], ARGV[#ARGV]
local now, microseconds = read_clock()
local service = read_service(keys, now, ARGV[3])
local requests, owner, most_held = read_requests(keys, {unpack(KEYS, 17)}, {unpack(ARGV, 7, #ARGV - 2)})

-- The allocation of a request's name, and its first port; nil if it has none.
local function find_existing(request)
  local port = request.has
  local record = port and call('HGET', keys.ports, port)
  if not record or not is_live(record, now) then return nil end
  return record, port
end

-- The same and how many ports it has, if it has the request's secret.
local function find_claimed(request)
  local record, port = find_existing(request)
  if not record or not has_secret(record, request.secret) then return nil end
  return record, port, count_of(record)
end

-- What is known of a request: see resolve in parts/ports/acquire.lua.
local function look_at(request)
  if not request.own then return 'missing' end
  local state, record, holder, port, count, _, lease, its_owner =
    find_offer(keys, now, service.name, request.offer, request.secret)
  if not state then
    record, port, count = find_claimed(request)
    if record then state, holder, its_owner = 'accepted', request.name, owner_of(record) end
  end
  -- Whoever accepts an offer changes its owner's key.
  local is_anothers = its_owner and its_owner ~= owner and (owner ~= nil or state == 'open')
  local wrong = check_secret(request, state, holder, port, count, is_anothers)
  if wrong then return 'refused', wrong end
  if state == 'accepted' then return 'done', record end
  if state ~= 'open' then return 'missing' end
  -- The secret has an open offer: it is accepted, with its lease and its labels unless the request has others.
  request.port, request.count, request.offered_lease, request.is_offered = port, count, lease, true
  request.owner, request.is_labelled = its_owner, has_labels(record)
  return 'held'
end

local total, most = 0, 256 -- ports of one call
local function resolve(request)
  local status, value = look_at(request)
  local existing = status == 'missing' and request.existing and find_existing(request)
  if existing then return 'done', existing end
  total = total + request.count
  if status ~= 'refused' and total > most then
    return 'refused', 'INVALID body asks for more than ' .. most .. ' ports'
  end
  return status, value
end

local function may_grant()
  return is_behind(call('GET', keys.fence), seen, microseconds) and 'behind' or nil
end

-- Remembers the secret of a claim like that of an accepted offer. One that was never offered may claim again.
local function remember_claim(request)
  local expires = string.format('%d', now + remember)
  local record = offer_record(service.name, request.name, request.port, request.count, now, expires, nil,
    request.secret, not request.is_offered and 'claimed', request.owner)
  call('SET', request.offer, record, 'PX', remember)
end

local function write(unwritten, answers)
  local fence, all = next_fence(keys.fence, microseconds, #unwritten, seen, least), new_allocations()
  local holds = {}
  for i, request in ipairs(unwritten) do
    local number = i == 1 and fence or string.format('%d', fence + i - 1)
    local ends = request.lease and string.format('%d', now + request.lease)
    if not request.is_offered then request.owner = owner end
    answers[request.index + 1] = add_allocation(all, request.name, request.port, request.count, now, number,
      request.lease, ends, request.secret, request.owner, request.labels or request.is_labelled,
      not request.is_offered)
    if request.owner then add_holds(holds, request.port, request.count, ends) end
    if request.own then remember_claim(request) end
    add_event(keys.events, 'allocated', request.name, request.port, request.count, number, request.owner, ends)
  end
  write_allocations(keys, all)
  write_labels(keys, unwritten)
  if #holds > 0 then own_ports(keys, now, holds) end
end

local group = {requests = requests, ticket = ticket, stay = stay, owner = owner, most = most_held}
return answer_of(acquire(keys, service, group, resolve, write, may_grant))
