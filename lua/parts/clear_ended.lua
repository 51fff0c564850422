local call = redis.call
-- include history: add_event
-- include record: has_labels, is_first_port, name_of, parse_allocation

-- Clears what an offer or a lease that ended has left at a port: its record, its name and its labels. Of a leased block
-- it clears all ports, 100 at most, and adds an event. Returns how many ports it has cleared.
local function clear_port(keys, port)
  local record = call('HGET', keys.offers, port)
  if not record then return 0 end
  if record ~= 'leased' then
    call('HDEL', keys.offers, port)
    call('HDEL', keys.names, name_of(record))
    if has_labels(record) then call('HDEL', keys.labels, port) end
    return 1
  end
  record = call('HGET', keys.ports, port)
  if is_first_port(record) then
    port = record
    record = call('HGET', keys.ports, port)
  end
  local name, count, fence, _, _, _, owner, labels = parse_allocation(record)
  local all = {}
  for i = 1, count do all[i] = string.format('%d', port + i - 1) end
  call('HDEL', keys.ports, unpack(all))
  call('ZREM', keys.leases, unpack(all))
  call('HDEL', keys.offers, unpack(all))
  call('HDEL', keys.names, name)
  if labels then call('HDEL', keys.labels, port) end
  add_event(keys.events, 'expired', name, port, count, fence, owner, string.match(record, '"expires":(%d+)'))
  return count
end

-- Clears what offers and leases that ended have left at some ports, until `most` ports are cleared. Returns whether
-- that was all, and at how many ports something was left.
local function clear_ended(keys, all, most)
  local cleared, found = 0, 0
  for first = 1, #all, 250 do
    local some = {unpack(all, first, math.min(first + 249, #all))}
    for i, record in ipairs(call('HMGET', keys.offers, unpack(some))) do
      if record then
        if cleared >= most then return false, found end
        cleared = cleared + clear_port(keys, some[i])
        found = found + 1
      end
    end
  end
  return true, found
end
