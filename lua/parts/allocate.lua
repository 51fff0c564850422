-- Makes ports an allocation, which nobody else can have, and returns its record: for ever, or, where lease is not nil, for
-- so many ms from now on.
local function allocate(name, port, count, created, number, lease, secret)
  local of_block, of_lease, expires = '', '', nil
  if count > 1 then of_block = ',"count":' .. count end
  if lease then
    expires = string.format('%d', now + lease)
    of_lease = ',"lease":' .. lease .. ',"expires":' .. expires
  end
  local record = '{"name":"' .. name .. '","port":' .. port .. of_block .. ',"created":' .. created .. ',"fence":' .. number ..
    of_lease .. ',"secret":"' .. secret .. '"}'
  if count == 1 then
    if lease then
      call('ZADD', free, expires, port)
      call('ZADD', leases, expires, port)
      call('HSET', offers, port, 'leased') -- so that who is given the port next finds that there is something to clear
    else
      call('ZREM', free, port)
      call('HDEL', offers, port)
    end
    call('HSET', ports, port, record)
    return record
  end
  local all, scores, marks, records = {}, {}, {}, {}
  for i = 1, count do
    local each, at = string.format('%d', port + i - 1), 2 * i
    all[i] = each
    scores[at - 1], scores[at] = expires, each
    marks[at - 1], marks[at] = each, 'leased'
    records[at - 1], records[at] = each, port
  end
  records[2] = record
  if lease then
    call('ZADD', free, unpack(scores))
    call('ZADD', leases, unpack(scores))
    call('HSET', offers, unpack(marks))
  else
    call('ZREM', free, unpack(all))
    call('HDEL', offers, unpack(all))
  end
  call('HSET', ports, unpack(records))
  return record
end
