-- Offers free ports of a service to instance names, as many as are wanted of one call: all, or none. Most offers go the short way
-- of offer_any.lua.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, room ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        line ZSET, beats ZSET, lines ZSET, then of each want: offer STRING (the secret's)
-- ARGV   service, how long the offers are open (ms), ticket in the line ('': none), '1' if the call is to wait in line
--        where nothing is free, then of each want: name, secret, options ('': none) "own lease port prefer count": '1' if
--        the secret is the caller's own, ms, a certain port, one to prefer, how many in a row ('0': not given)
--
-- answer {want, ...}  of each record where it is a new offer, {record} where this secret already had it and it is open; not
--                     in a list where there is one want
--        0 or less    the call has to wait: its ticket is in the line. A port comes free by itself in so many ms, negative;
--                     none does that is known of: 0
--        1            it has put some ports in order, 150 at most, and is to be called again
--        2            settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        and before the detail which want it is, and what of it: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several with | between them; INVALID body detail; only for a secret of the caller's
--        own: INVALID, OFFER_ACCEPTED, OFFER_REJECTED
--
-- At worst, 256 certain ports for 100 wants that are put back, since a block is not to be had: about 1.7 ms where the usual
-- offer takes 10 us.
local service_key, free, fresh, room, names, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ports, leases, resting, line, beats, lines = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local service, ttl, ticket, stay = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local call = redis.call
-- include clock
-- include service

-- include offer_record
-- include lives
-- include secret
-- include clear
-- include clear_all
-- include runs
-- include waitlist
-- include wants
-- include pick
-- include pass
-- include settle_rest
-- include take

local wants, answers, missing = read_wants(12), {}, {}
for i, want in ipairs(wants) do
  local state, record, holder, port, _, count
  if want.own then state, record, holder, port, _, count = look_up(want.offer, want.secret) end
  local wrong = refuse(want, state, holder, port, count)
    or state == 'accepted' and fault('OFFER_ACCEPTED', want, 'secret', 'this offer was accepted already')
  if wrong then
    return wrong
  elseif state == 'open' then
    answers[i] = {record}
  else
    missing[#missing + 1] = want
  end
end
if #missing > 0 then
  local failed = take(missing)
  if failed then return failed end
end

local scores, records = {}, {}
for _, want in ipairs(missing) do
  local record = offer_record(want.name, want.port, want.count, want.lease, want.secret)
  for i = 0, want.count - 1 do
    scores[#scores + 1] = expires
    scores[#scores + 1] = string.format('%d', want.port + i)
  end
  records[#records + 1] = want.port
  records[#records + 1] = record
  call('SET', want.offer, record, 'PXAT', expires)
  answers[want.place + 1] = record
end
if #missing > 0 then
  call('ZADD', free, unpack(scores))
  call('HSET', offers, unpack(records))
end
served()
return #wants == 1 and answers[1] or answers
