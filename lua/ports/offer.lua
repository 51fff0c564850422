-- Offers free ports of a service to the instance names of one call: all that it requests, or none. Most calls take
-- the short path of offer_any.lua.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, waitlist ZSET, heartbeats ZSET, waitlists ZSET, events STREAM, labels HASH, last HASH,
--        then of each request: offer STRING (of the secret); of an owner: owned ZSET
-- ARGV   events, request, service, how long the offers are open (ms), ticket in the waitlist ('': none), '1' if the
--        call is to wait if too few ports are free, then of each request: name, secret, options ('': none)
--        "own lease port prefer count": '1' if the client supplied the secret, lease (ms), exact port, preferred
--        port, how many consecutive ports ('0': not given; '2x4': 2 ports, the first a multiple of 4); behind them,
--        only of a claim, " existing" if an allocation that the name has will do; then a space and the labels as JSON,
--        if it has any. Of an owner: owner, and how many ports it may hold in the pool ('0': any number)
--
-- answer {request, ...}  of each request the record of a new offer, or {record} if this secret has it already and it is
--                        open, with its labels behind it; of a single request its record or {record} alone
--        0 or less       the call has to wait: its ticket is in the waitlist. Negative: a port becomes free by itself
--                        in so many ms; 0: none does
--        1               the script did other work, on 150 ports at most: call it again
--        2               call settle.lua until it is done, then this script again
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port becomes free by itself, or -1
--        with the request and its field before the detail: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several requests with | between them; INVALID body detail
--        only for a secret that the client supplied: INVALID, OFFER_ACCEPTED, OFFER_REJECTED, NOT_OWNER
--        only for an owner: QUOTA_EXCEEDED
--
-- Worst case: 256 exact ports for 100 requests that are put back since a block is missing: about 1.7 ms (the usual
-- offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include labels: write_labels
-- include owner: own_ports
-- include ports/acquire: acquire, answer_of
-- include ports/check_requests: check_secret, fault
-- include ports/find: find_offer
-- include ports/read_requests: read_requests
-- include record: offer_record
-- include service: read_service

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], waitlist = KEYS[10], heartbeats = KEYS[11],
  waitlists = KEYS[12], events = KEYS[13], labels = KEYS[14], last = KEYS[15],
}
local ttl, ticket, stay = ARGV[4], ARGV[5], ARGV[6] == '1'
local now = read_clock()
local service = read_service(keys, now, ARGV[3])
local requests, owner, most = read_requests(keys, {unpack(KEYS, 16)}, {unpack(ARGV, 7)})

local function resolve(request)
  if not request.own then return 'missing' end
  local state, record, holder, port, count, _, _, its_owner =
    find_offer(keys, now, service.name, request.offer, request.secret)
  local is_anothers = its_owner and owner and its_owner ~= owner
  local wrong = check_secret(request, state, holder, port, count, is_anothers)
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
      request.secret, nil, owner, request.labels)
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
  write_labels(keys, missing)
  if owner then own_ports(keys, now, scores) end
end

local group = {requests = requests, ticket = ticket, stay = stay, owner = owner, most = most}
return answer_of(acquire(keys, service, group, resolve, write))
