-- Offers and accepts in one call: makes free ports of a service allocations, as many as are wanted: all, or none.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, room ZSET, names HASH, offers HASH, ports HASH, leases ZSET, line ZSET,
--        beats ZSET, fence STRING, then of each want: offer STRING (the secret's)
-- ARGV   service, how long a secret of the caller's own is remembered (ms), then as of offer.lua: ticket, to wait or not,
--        and of each want: name, secret, options
--
-- answer {want, ...}  of each record where it is a new allocation, {record} where this secret already had it; not in a list
--                     where there is one want
--        0            the call has to wait: its ticket is in the line
--        1            it has gathered 250 ports in search of a block, and is to be called again
-- errors SERVICE_NOT_FOUND
--        EXHAUSTED ms detail: ms until a port comes free by itself, or -1
--        and before the detail which want it is, and what of it: NAME_TAKEN [0].name detail, PORT_TAKEN ms [0].port detail,
--        INVALID [0].port detail; only for a secret of the caller's own: INVALID, OFFER_ACCEPTED, OFFER_REJECTED
local service_key, free, fresh, room, names, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ports, leases, line, beats, fence = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local service, remember, ticket, stay = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local call = redis.call
-- include clock
-- include service
-- include lives
-- include secret
-- include clear
-- include runs
-- include turn
-- include wants
-- include pick
-- include take
-- include allocate

-- The allocation of a name, where it is this secret's: it is known for as long as it lives.
local function claimed(want)
  local port = call('HGET', names, want.name)
  local allocation = port and call('HGET', ports, port)
  local is_own = allocation and string.find(allocation, '"secret":"' .. want.secret .. '"', 1, true)
  if is_own and lives(allocation) then return allocation end
end

local wants, answers, missing = read_wants(11), {}, {}
for i, want in ipairs(wants) do
  local state, record, holder, port, _, count, lease
  if want.own then state, record, holder, port, _, count, lease = look_up(want.offer, want.secret) end
  local wrong = refuse(want, state, holder)
  if wrong then
    return wrong
  elseif state == 'open' then -- its offer is half of what is wanted
    want.port, want.count, want.lease, want.kept = port, count, want.lease or lease, true
  else
    local allocation = state == 'accepted' and record or want.own and claimed(want)
    if allocation then answers[i] = {allocation} else missing[#missing + 1] = want end
  end
end
if #missing > 0 then
  local failed = take(missing)
  if failed then return failed end
end

for i, want in ipairs(wants) do
  if not answers[i] then
    if not want.kept then -- then what stands there is of holds that ran out
      for port = tonumber(want.port), want.port + want.count - 1 do clear(string.format('%d', port)) end
    end
    answers[i] = allocate(want.name, want.port, want.count, now, call('INCR', fence), want.lease, want.secret)
    if want.own then -- remembered like an accepted offer
      local of_block = want.count > 1 and ',"count":' .. want.count or ''
      local expires = string.format('%d', now + remember)
      call('SET', want.offer, '{"service":"' .. service .. '","name":"' .. want.name .. '","port":' .. want.port .. of_block ..
        ',"created":' .. now .. ',"expires":' .. expires .. ',"secret":"' .. want.secret .. '"}', 'PX', remember)
    end
  end
end
if waiting and ticket ~= '' then leave({ticket}) end
return #wants == 1 and answers[1] or answers
