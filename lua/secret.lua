-- What a secret stands for, read the same way by every script that is handed one.
--
-- answer: state, record, name, port, expires
--   'open'       the offer can be accepted: its time has not come, and the port is still kept for it
--   'accepted'   it became an allocation, which is still there; record is the allocation's
--   'rejected'   it was rejected a short while ago
--   'elsewhere'  it is an offer of another service of this pool
--   nil          no such offer, or it expired
--
-- The clock decides, not the key's TTL. The offer's record must also still stand at its port, so that a key which
-- outlives its time can never open a port that has gone to somebody else since. It holds the secret, so no two are alike.
local function look_up(offer, offers, ports, service, secret)
  local record = redis.call('GET', offer)
  if not record then return nil end
  local of, name, port, expires, mark =
    string.match(record, '^{"service":"([^"]+)","name":"([^"]+)","port":(%d+),"created":%d+,"expires":(%d+),"secret":"[^"]+"(.*)}$')
  if tonumber(now) >= tonumber(expires) then return nil end
  if of ~= service then return 'elsewhere' end
  if mark == ',"rejected":true' then return 'rejected', record, name, port, expires end
  if redis.call('HGET', offers, port) == record then return 'open', record, name, port, expires end
  local allocation = redis.call('HGET', ports, port)
  if allocation and string.find(allocation, secret, 1, true) then return 'accepted', allocation, name, port, expires end
  return nil
end

-- The error of a secret that opens nothing.
local function not_found(service_key, service)
  if redis.call('EXISTS', service_key) == 0 then
    return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
  end
  return redis.error_reply('OFFER_NOT_FOUND there is no such offer of ' .. service .. ', or it expired')
end
