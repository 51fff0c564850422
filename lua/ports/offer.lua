-- Offers free ports of a service to instance names, as many as one call asks for: all, or none. Most offers go the short way
-- of offer_any.lua.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        waitlist ZSET, heartbeats ZSET, waitlists ZSET, then of each request: offer STRING (the secret's)
-- ARGV   service, how long the offers are open (ms), ticket in the line ('': none), '1' if the call is to wait in line
--        where nothing is free, then of each request: name, secret, options ('': none) "own lease port prefer count": '1' if
--        the secret is the caller's own, ms, an exact port, one to prefer, how many in a row ('0': not given)
--
-- answer {request, ...}  of each record where it is a new offer, {record} where this secret already had it and it is open; not
--                     in a list where there is one request
--        0 or less    the call has to wait: its ticket is in the line. A port comes free by itself in so many ms, negative;
--                     none does that is known of: 0
--        1            it has put some ports in order, 150 at most, and is to be called again
--        2            settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        and before the detail which request it is, and what of it: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several with | between them; INVALID body detail; only for a secret of the caller's
--        own: INVALID, OFFER_ACCEPTED, OFFER_REJECTED
--
-- At worst, 256 exact ports for 100 requests that are put back, since a block is not to be had: about 1.7 ms where the usual
-- offer takes 10 us.
local call = redis.call
-- include ports/acquire: acquire, answer_of
-- include clock: read_clock
-- include record: offer_record
-- include ports/request: check_secret, fault, read_requests
-- include ports/find: find_offer
-- include service: read_service

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], waitlist = KEYS[10], heartbeats = KEYS[11], waitlists = KEYS[12],
}
local now = read_clock()
local service, ttl, ticket, stay = read_service(keys, now, ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == '1'
local requests = read_requests(keys, {unpack(KEYS, 13)}, {unpack(ARGV, 5)})

local function resolve(request)
  if not request.own then return 'missing' end
  local state, record, holder, port, count = find_offer(keys, now, service.name, request.offer, request.secret)
  local wrong = check_secret(request, state, holder, port, count)
  if not wrong and state == 'accepted' then
    wrong = fault('OFFER_ACCEPTED', request, 'secret', 'this offer was accepted already')
  end
  if wrong then return 'refused', wrong end
  if state == 'open' then return 'done', record end
  return 'missing'
end

local function write(missing, answers)
  local expires, scores, records = string.format('%d', now + ttl), {}, {}
  for _, request in ipairs(missing) do
    local record = offer_record(service.name, request.name, request.port, request.count, now, expires, request.lease,
      request.secret)
    for i = 0, request.count - 1 do
      scores[#scores + 1] = expires
      scores[#scores + 1] = string.format('%d', request.port + i)
    end
    records[#records + 1] = request.port
    records[#records + 1] = record
    call('SET', request.offer, record, 'PXAT', expires)
    answers[request.index + 1] = record
  end
  call('ZADD', keys.free, unpack(scores))
  call('HSET', keys.offers, unpack(records))
end

return answer_of(acquire(keys, service, {requests = requests, ticket = ticket, stay = stay}, resolve, write))
