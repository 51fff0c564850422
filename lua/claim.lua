-- Offers and accepts in one call: makes free ports of a service allocations, as many as are wanted: all, or none.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, room ZSET, names HASH, offers HASH, ports HASH, leases ZSET, resting ZSET,
--        line ZSET, beats ZSET, lines ZSET, fence STRING, then of each want: offer STRING (the secret's)
-- ARGV   service, how long a secret of the caller's own is remembered (ms), then as of offer.lua: ticket, to wait or not,
--        and of each want: name, secret, options; last the highest fence of the pool that the server saw, and the highest of all
--
-- answer {want, ...}  of each record where it is a new allocation, {record} where this secret already had it; not in a list
--                     where there is one want
--        0 or less, 1, or 2: as of offer.lua
--        3                   nothing is done: the state is behind
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        and before the detail which want it is, and what of it: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail, of several with | between them; INVALID body detail; only for a secret of the caller's
--        own: INVALID, OFFER_ACCEPTED, OFFER_REJECTED
--
-- At worst, 256 certain ports, of which some are fresh and some given back, for 100 wants with leases and secrets of their
-- own: about 2.1 ms where the usual offer takes 10 us.
local service_key, free, fresh, room, names, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ports, leases, resting, line, beats, lines, fence = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local service, remember, ticket, stay = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local seen, least = ARGV[#ARGV - 1], ARGV[#ARGV]
local call = redis.call
local most = 256 -- ports of one call
-- include clock
-- include service
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
-- include next_fence
-- include allocate

-- The allocation of a name, where it is this secret's: it is known for as long as it lives. Also its first port, and how many
-- it has.
local function claimed(want)
  local port = want.has
  local allocation = port and call('HGET', ports, port)
  local is_own = allocation and string.find(allocation, '"secret":"' .. want.secret .. '"', 1, true)
  if is_own and lives(allocation) then return allocation, port, tonumber(string.match(allocation, '"count":(%d+)') or 1) end
end

local wants, answers, missing, total, repeated = read_wants(13), {}, {}, 0, 0
for i, want in ipairs(wants) do
  local state, record, holder, port, count, lease, _
  if want.own then state, record, holder, port, _, count, lease = look_up(want.offer, want.secret) end
  if want.own and not state then
    record, port, count = claimed(want)
    if record then state, holder = 'accepted', want.name end
  end
  local wrong = refuse(want, state, holder, port, count)
  if wrong then
    return wrong
  elseif state == 'open' then -- its offer is half of what is wanted
    want.port, want.count, want.lease, want.kept = port, count, want.lease or lease, true
  elseif state == 'accepted' then
    answers[i], repeated = {record}, repeated + 1
  else
    missing[#missing + 1] = want
  end
  total = total + want.count
  if total > most then return redis.error_reply('INVALID body asks for more than ' .. most .. ' ports') end
end
if #missing > 0 then
  if is_behind(call('GET', fence), seen) then return 3 end
  local failed = take(missing)
  if failed then return failed end
end

local number, notes = nil, nothing_noted()
for i, want in ipairs(wants) do
  if not answers[i] then
    number = number and number + 1 or next_fence(#wants - repeated)
    notes.picked = not want.kept
    answers[i] = allocate(want.name, want.port, want.count, now, string.format('%d', number), want.lease, want.secret, notes)
    if want.own then -- remembered like an accepted offer, which may not be made again; a mere claim may
      local of_block = want.count > 1 and ',"count":' .. want.count or ''
      local of_claim = want.kept and '' or ',"claimed":true'
      local expires = string.format('%d', now + remember)
      call('SET', want.offer, '{"service":"' .. service .. '","name":"' .. want.name .. '","port":' .. want.port .. of_block ..
        ',"created":' .. now .. ',"expires":' .. expires .. ',"secret":"' .. want.secret .. '"' .. of_claim .. '}', 'PX', remember)
    end
  end
end
if number then write(notes) end
served()
return #wants == 1 and answers[1] or answers
