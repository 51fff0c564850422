-- Makes a change that may be the first of a holder's script. A full Redis refuses a script whose first change may take memory; one
-- that has changed something before, if only nothing, goes through.
local function write_though_full(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  call('HDEL', ports, '')
  return call(command, key, ...)
end

-- Writes allocations, as allocate has noted them.
local function write(noted)
  if #noted.scores > 0 then
    write_though_full('ZADD', free, unpack(noted.scores))
    call('ZADD', leases, unpack(noted.scores))
    call('HSET', offers, unpack(noted.marks)) -- so that who is given a port next finds that there is something to clear
  end
  if #noted.for_ever > 0 then
    call('ZREM', free, unpack(noted.for_ever))
    call('HDEL', offers, unpack(noted.for_ever))
  end
  call('HSET', ports, unpack(noted.records))
end

local function nothing_noted() return {scores = {}, marks = {}, for_ever = {}, records = {}} end

-- Makes ports an allocation, which nobody else can have, and returns its record: for ever, or, where lease is not nil, for
-- so many ms from now on. If notes are given, it is only noted there, for many to be written at once; notes.picked says that
-- its ports were just picked, and so are in no other key.
local function allocate(name, port, count, created, number, lease, secret, notes)
  local of_block, of_lease, expires = '', '', nil
  if count > 1 then of_block = ',"count":' .. count end
  if lease then
    expires = string.format('%d', now + lease)
    of_lease = ',"lease":' .. lease .. ',"expires":' .. expires
  end
  local record = '{"name":"' .. name .. '","port":' .. port .. of_block .. ',"created":' .. created .. ',"fence":' .. number ..
    of_lease .. ',"secret":"' .. secret .. '"}'
  if count == 1 and not notes and not lease then
    call('ZREM', free, port)
    call('HDEL', offers, port)
    call('HSET', ports, port, record)
    return record
  end
  local noted = notes or nothing_noted()
  local scores, marks, for_ever, records = noted.scores, noted.marks, noted.for_ever, noted.records
  for i = 0, count - 1 do
    local each = i == 0 and port or string.format('%d', port + i)
    if lease then
      scores[#scores + 1], marks[#marks + 1] = expires, each
      scores[#scores + 1], marks[#marks + 1] = each, 'leased'
    elseif not noted.picked then
      for_ever[#for_ever + 1] = each
    end
    records[#records + 1] = each
    records[#records + 1] = i == 0 and record or port
  end
  if not notes then write(noted) end
  return record
end
