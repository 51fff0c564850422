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
  for i = 0, count - 1 do
    local each = i == 0 and port or string.format('%d', port + i)
    if lease then
      call('ZADD', free, expires, each)
      call('ZADD', leases, expires, each)
      call('HSET', offers, each, 'leased') -- so that who is given the port next finds that there is something to clear
    else
      call('ZREM', free, each)
      call('HDEL', offers, each)
    end
    call('HSET', ports, each, i == 0 and record or port)
  end
  return record
end
