local call = redis.call
-- include clear_ended: clear_ended
-- include drains: drained_ports, parse_drains, set_drains
-- include ranges: read_ranges
-- include resting: note_rest
-- include services/overlaps: pool_ranges, set_ranges

-- Removes ports that left the ranges from the keys of the service. ended has pairs of a port and the time from which it
-- cools down; it rests until that is over, or longer if it rests already, whoever has it then.
local function forget_ports(keys, service, ended)
  if #ended == 0 then return end
  local all, until_of = {}, {}
  for i = 1, #ended, 2 do all[#all + 1] = ended[i] end
  local rests = call('HMGET', keys.rest, unpack(all))
  for i = 1, #ended, 2 do
    local cooled_down = string.format('%d', ended[i + 1] + service.cooldown)
    local earliest = math.max(service.now, tonumber(rests[(i + 1) / 2] or 0))
    if tonumber(cooled_down) > earliest then
      until_of[#until_of + 1], until_of[#until_of + 2] = ended[i], cooled_down
    end
  end
  call('ZREM', keys.free, unpack(all))
  clear_ended(keys, all, math.huge)
  note_rest(keys, until_of)
end

-- Takes ports that drained, 250 at most, out of the service. When the last of them has gone, the pool may give the
-- ranges to others. Returns whether those were all.
local function settle_drains(keys, service)
  if not service.drains then return true end
  local count, _, ranges = parse_drains(service.drains)
  local drained, swept, is_all = drained_ports(keys, service.now, service.drains)
  forget_ports(keys, service, drained)
  count = count - #drained / 2
  if count > 0 or not is_all then
    set_drains(keys, service, count, swept, ranges)
    return is_all
  end
  local own = read_ranges(keys)
  call('HDEL', keys.service, 'drains')
  service.drains = nil
  set_ranges(keys, service.name, pool_ranges(own, ranges), own)
  return true
end
