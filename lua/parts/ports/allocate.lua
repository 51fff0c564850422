local call = redis.call
-- include full_redis: write_though_full
-- include record: allocation_record

-- Collects allocations that write_allocations then writes together.
local function new_allocations()
  return {scores = {}, marks = {}, lasting = {}, records = {}}
end

-- Adds an allocation, and returns its record. It has a lease and ends at `expires`, or lease is nil; owner may be nil.
-- labels says whether it has any. Ports that were just picked are in no key that would have to be cleared.
local function add_allocation(
  all, name, port, count, created, fence, lease, expires, secret, owner, labels, were_picked
)
  local scores, marks, lasting, records = all.scores, all.marks, all.lasting, all.records
  local record = allocation_record(name, port, count, created, fence, lease, expires, secret, owner, labels)
  for i = 0, count - 1 do
    local each = i == 0 and port or string.format('%d', port + i)
    if lease then
      scores[#scores + 1], marks[#marks + 1] = expires, each
      scores[#scores + 1], marks[#marks + 1] = each, 'leased'
    elseif not were_picked then
      lasting[#lasting + 1] = each
    end
    records[#records + 1] = each
    records[#records + 1] = i == 0 and record or port
  end
  return record
end

-- Writes the collected allocations, even if Redis is full. A leased port is marked in `offers`: the next holder of
-- the port sees that there is a lease to clear.
local function write_allocations(keys, all)
  if #all.scores > 0 then
    local answer = redis.pcall('ZADD', keys.free, unpack(all.scores))
    if type(answer) == 'table' then -- an error
      write_though_full(keys.ports)
      call('ZADD', keys.free, unpack(all.scores))
    end
    call('ZADD', keys.leases, unpack(all.scores))
    call('HSET', keys.offers, unpack(all.marks))
  end
  if #all.lasting > 0 then
    call('ZREM', keys.free, unpack(all.lasting))
    call('HDEL', keys.offers, unpack(all.lasting))
  end
  call('HSET', keys.ports, unpack(all.records))
end

-- Allocates offered or leased ports, and returns the record.
local function allocate(keys, name, port, count, created, fence, lease, expires, secret, owner, labels)
  if count == 1 and not lease then
    local record = allocation_record(name, port, count, created, fence, nil, nil, secret, owner, labels)
    call('ZREM', keys.free, port)
    call('HDEL', keys.offers, port)
    call('HSET', keys.ports, port, record)
    return record
  end
  local all = new_allocations()
  local record = add_allocation(all, name, port, count, created, fence, lease, expires, secret, owner, labels)
  write_allocations(keys, all)
  return record
end
