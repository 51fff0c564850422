-- The records of offers and allocations: flat JSON objects whose texts need no escapes. No other part or script
-- writes or parses them.
--
-- offer       service, name, port, count, owner, labels, created, expires, lease if it has one, secret, and a mark that
--             says what became of it: "rejected", "released", or "claimed" for a claim that is remembered as an offer
-- allocation  name, port, count, owner, labels, created, fence, lease and expires if it has a lease, secret
--
-- A record has an owner if its caller had one, and "labels":true if it has labels, which are in a key of their own; see
-- labels.lua. It has a count if that is more than 1, or if it has one of these: servers that do not know them take what
-- stands between port and created for the count, and find the count first.
--
-- Times are Unix milliseconds, a lease is in milliseconds. Functions take numbers as strings or numbers, but a count
-- only as a number.

-- Writes an offer. lease, mark and owner may be nil; labels says whether it has any.
local function offer_record(service, name, port, count, created, expires, lease, secret, mark, owner, labels)
  return '{"service":"' .. service .. '","name":"' .. name .. '","port":' .. port ..
    ((owner or labels or count > 1) and ',"count":' .. count or '') ..
    (owner and ',"owner":"' .. owner .. '"' or '') .. (labels and ',"labels":true' or '') ..
    ',"created":' .. created .. ',"expires":' .. expires ..
    (lease and ',"lease":' .. lease or '') .. ',"secret":"' .. secret ..
    (mark and '","' .. mark .. '":true}' or '"}')
end

-- Parses an offer: service, name, port, count, expires, lease, mark, owner, labels. All are strings but the count, and
-- labels, which says whether it has any; lease, mark and owner may be nil.
local function parse_offer(record)
  local service, name, port, count, expires, lease, mark = string.match(record,
    '^{"service":"([^"]+)","name":"([^"]+)","port":(%d+)(.-),"created":%d+,"expires":(%d+)(.-),"secret":"[^"]+"(.*)}$')
  return service, name, port, count == '' and 1 or tonumber(string.match(count, '%d+')), expires,
    lease ~= '' and string.match(lease, '%d+') or nil, mark ~= '' and string.match(mark, '"(%l+)":true') or nil,
    count ~= '' and string.match(count, '"owner":"([^"]+)"') or nil,
    count ~= '' and string.find(count, '"labels":true', 1, true) ~= nil
end

-- What an offer or an allocation of one port has behind its port if it is of this owner, without labels.
local function owner_part(owner)
  return ',"count":1,"owner":"' .. owner .. '"'
end

-- Parses an offer of one port without a lease and labels, whatever its mark, that has no owner or the one of of_owner,
-- which is his owner_part or nil: service, name, port, expires, all strings, and whether it has the owner. Nil if it is
-- another.
local function parse_plain_offer(record, of_owner)
  local service, name, port, owned, expires = string.match(record,
    '^{"service":"([^"]+)","name":"([^"]+)","port":(%d+)(.-),"created":%d+,"expires":(%d+),"secret"')
  if service and (owned == '' or owned == of_owner) then return service, name, port, expires, owned ~= '' end
  return nil
end

-- Adds a mark to an offer.
local function mark_offer(record, mark)
  return string.sub(record, 1, -2) .. ',"' .. mark .. '":true}'
end

-- Writes an allocation. Without a lease, lease and expires are nil; owner may be nil; labels says whether it has any.
local function allocation_record(name, port, count, created, fence, lease, expires, secret, owner, labels)
  return '{"name":"' .. name .. '","port":' .. port ..
    ((owner or labels or count > 1) and ',"count":' .. count or '') ..
    (owner and ',"owner":"' .. owner .. '"' or '') .. (labels and ',"labels":true' or '') ..
    ',"created":' .. created .. ',"fence":' .. fence ..
    (lease and ',"lease":' .. lease .. ',"expires":' .. expires or '') .. ',"secret":"' .. secret .. '"}'
end

-- Parses an allocation: name, count, fence, lease, secret, created, owner, labels. All are strings but the count, and
-- labels, which says whether it has any; lease and owner may be nil.
local function parse_allocation(record)
  local name, count, created, fence, lease, secret = string.match(record,
    '^{"name":"([^"]+)","port":%d+(.-),"created":(%d+),"fence":(%d+)(.-),"secret":"([^"]+)"}$')
  return name, count == '' and 1 or tonumber(string.match(count, '%d+')), fence,
    lease ~= '' and string.match(lease, '%d+') or nil, secret, created,
    count ~= '' and string.match(count, '"owner":"([^"]+)"') or nil,
    count ~= '' and string.find(count, '"labels":true', 1, true) ~= nil
end

-- Parses an allocation of one port without a lease and labels, that has no owner or the one of of_owner, as above:
-- name, fence, both strings, and whether it has the owner. Nil if it is another, or no allocation.
local function parse_plain_allocation(record, of_owner)
  local name, owned, fence = string.match(record,
    '^{"name":"([^"]+)","port":%d+(.-),"created":%d+,"fence":(%d+),"secret"')
  if name and (owned == '' or owned == of_owner) then return name, fence, owned ~= '' end
  return nil
end

-- The name of an offer or an allocation.
local function name_of(record)
  return string.match(record, '"name":"([^"]+)"')
end

-- The owner of an offer or an allocation; nil if it has none.
local function owner_of(record)
  return string.match(record, '"owner":"([^"]+)"')
end

-- Whether an offer or an allocation has labels.
local function has_labels(record)
  return string.find(record, '"labels":true', 1, true) ~= nil
end

-- How many ports an offer or an allocation has.
local function count_of(record)
  return tonumber(string.match(record, '"count":(%d+)') or 1)
end

-- Whether an offer or an allocation has this secret.
local function has_secret(record, secret)
  return string.find(record, '"secret":"' .. secret .. '"', 1, true) ~= nil
end

-- Whether an offer or an allocation still holds its ports: its `expires` lies in the future, or it has none.
local function is_live(record, now)
  local at = string.find(record, '"expires":', 1, true)
  return not at or tonumber(now) < tonumber(string.match(record, '%d+', at))
end

-- Whether `ports` has at a port the number of a block's first port, which has the record.
local function is_first_port(record)
  return string.find(record, '^%d') ~= nil
end
