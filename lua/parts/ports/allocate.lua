local call = redis.call
-- include record: allocation_record

-- Makes a change that may be the first of a holder's script. A full Redis refuses a script whose first change may take memory;
-- one that has changed something before, if only nothing, goes through.
local function write_though_full(keys, command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  call('HDEL', keys.ports, '')
  return call(command, key, ...)
end

-- What note_allocation notes, for many allocations to be written at once.
local function nothing_noted()
  return {scores = {}, marks = {}, lasting = {}, records = {}}
end

-- Notes an allocation, and returns its record. It is to last, or, if lease is not nil, to end at expires. The ports of one that
-- were just picked are in no key that would have to be cleared.
local function note_allocation(noted, name, port, count, created, fence, lease, expires, secret, were_picked)
  local scores, marks, lasting, records = noted.scores, noted.marks, noted.lasting, noted.records
  local record = allocation_record(name, port, count, created, fence, lease, expires, secret)
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

-- Writes allocations that were noted. The next holder of a leased port finds by its mark that there is something to clear.
local function write_allocations(keys, noted)
  if #noted.scores > 0 then
    write_though_full(keys, 'ZADD', keys.free, unpack(noted.scores))
    call('ZADD', keys.leases, unpack(noted.scores))
    call('HSET', keys.offers, unpack(noted.marks))
  end
  if #noted.lasting > 0 then
    call('ZREM', keys.free, unpack(noted.lasting))
    call('HDEL', keys.offers, unpack(noted.lasting))
  end
  call('HSET', keys.ports, unpack(noted.records))
end

-- Makes ports an allocation, which nobody else can have, and returns its record.
local function allocate(keys, name, port, count, created, fence, lease, expires, secret)
  if count == 1 and not lease then
    local record = allocation_record(name, port, count, created, fence, nil, nil, secret)
    call('ZREM', keys.free, port)
    call('HDEL', keys.offers, port)
    call('HSET', keys.ports, port, record)
    return record
  end
  local noted = nothing_noted()
  local record = note_allocation(noted, name, port, count, created, fence, lease, expires, secret)
  write_allocations(keys, noted)
  return record
end

return nothing_noted, note_allocation, write_allocations, allocate
