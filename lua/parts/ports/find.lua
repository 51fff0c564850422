local call = redis.call
-- include record: has_secret, is_first_port, is_live, parse_offer
-- include service: no_service

-- Finds an allocation by one of its ports or by its name. What is all digits is a port: a name of digits is found in
-- `names` by the server, and then by its port. Returns the first port and the record, or nil, nil and the error.
local function find_allocation(keys, now, service, holder)
  local port = string.find(holder, '^%d+$') and holder or call('HGET', keys.names, holder)
  local record = port and call('HGET', keys.ports, port)
  if record and is_first_port(record) then
    port = record
    record = call('HGET', keys.ports, port)
  end
  if record and is_live(record, now) then return port, record end
  if call('EXISTS', keys.service) == 0 then return nil, nil, no_service(service) end
  return nil, nil, 'PORT_NOT_FOUND ' .. holder .. ' is not allocated in ' .. service
end

-- Finds the offer of a secret. offer is the key of the secret.
--
-- answer: state, record, name, port, count, expires, lease, owner
--   'open'       the offer can be accepted: it has not expired, and its ports are still held for it
--   'accepted'   it became an allocation that still exists; record is that of the allocation
--   'rejected'   it was rejected a short while ago
--   'released'   its allocation was released with this secret a short while ago
--   'over'       it was accepted a short while ago, and the allocation has ended since
--   'elsewhere'  it is an offer of another service of this pool
--   nil          there is no such offer, or it expired
-- Without a lease or an owner, lease or owner is nil.
--
-- The clock decides, not the TTL of the key. The record must also still be at its port: so a key that outlives its
-- time never opens a port that another holder got since. The record contains the secret, so no two are alike. Of a
-- block only the first port has the record; its other ports are held for the offer if their scores are its expiry.
local function find_offer(keys, now, service, offer, secret)
  local record = call('GET', offer)
  if not record then return nil end
  local of, name, port, count, expires, lease, mark, owner = parse_offer(record)
  if tonumber(now) >= tonumber(expires) then return nil end
  if of ~= service then return 'elsewhere' end
  if mark and mark ~= 'claimed' then return mark, record, name, port, count, expires, lease, owner end
  if not mark and call('HGET', keys.offers, port) == record then
    if count == 1 then return 'open', record, name, port, count, expires, lease, owner end
    local all = {}
    for i = 1, count - 1 do all[i] = string.format('%d', port + i) end
    for _, score in ipairs(call('ZMSCORE', keys.free, unpack(all))) do
      if tonumber(score or 0) ~= tonumber(expires) then return nil end
    end
    return 'open', record, name, port, count, expires, lease, owner
  end
  local allocation = call('HGET', keys.ports, port)
  if allocation and has_secret(allocation, secret) and is_live(allocation, now) then
    return 'accepted', allocation, name, port, count, expires, lease, owner
  end
  if mark then return nil end -- the same secret may claim again
  return 'over', record, name, port, count, expires, lease, owner
end

-- The error of a script whose secret opens no offer.
local function no_offer(keys, service)
  if call('EXISTS', keys.service) == 0 then return no_service(service) end
  return 'OFFER_NOT_FOUND there is no such offer of ' .. service .. ', or it expired'
end
