local call = redis.call
-- include record: count_of

-- What of a service is held outside of some ports.

-- Looks at ports, 250 at most: the words for the first that is held, nil if none is.
local function first_held(keys, now, all)
  if #all == 0 then return nil end
  local time = tonumber(now)
  local scores = call('ZMSCORE', keys.free, unpack(all))
  local allocations, ends = call('HMGET', keys.ports, unpack(all)), call('ZMSCORE', keys.leases, unpack(all))
  for i, port in ipairs(all) do
    local is_allocated = allocations[i] and (not ends[i] or tonumber(ends[i]) > time)
    if is_allocated then return 'port ' .. port .. ' is allocated' end
    if scores[i] and tonumber(scores[i]) > time then return 'port ' .. port .. ' is on offer' end
  end
end

-- Those of some ports that lie outside of first-last.
local function outside_of(first, last, some)
  local outside = {}
  for _, port in ipairs(some) do
    if port - first < 0 or port - last > 0 then outside[#outside + 1] = port end
  end
  return outside
end

-- Looks for a port that is held outside of first-last among those that are held at all, or 250 of them: the words for it, nil
-- if there is none, and whether those were all.
local function held_outside(keys, now, first, last)
  local until_then = call('ZRANGEBYSCORE', keys.free, '(' .. now, '+inf', 'LIMIT', '0', '250')
  local allocated = call('HLEN', keys.ports)
  local some = allocated <= 250 and call('HKEYS', keys.ports) or call('HRANDFIELD', keys.ports, '250')
  local held = first_held(keys, now, outside_of(first, last, until_then))
    or first_held(keys, now, outside_of(first, last, some))
  return held, #until_then < 250 and allocated <= 250
end

-- Goes on with a look at all that is on offer, and then all that is allocated, some 250 at a time: the words for the first that
-- is held outside of first-last, and where to go on, nil if that was all. It begins at 'o0'. In this order, since an offer that
-- is accepted meanwhile goes from the one to the other.
local function scan_held(keys, now, first, last, at)
  local of, cursor = string.match(at, '^(%l)(%d+)$')
  local found
  if of == 'o' then
    found = call('HSCAN', keys.offers, cursor, 'COUNT', '250')
  else
    found = call('HSCAN', keys.ports, cursor, 'COUNT', '250')
  end
  local all = {}
  for i = 1, #found[2], 2 do
    local port, count = found[2][i], count_of(found[2][i + 1])
    all[#all + 1] = port
    if count > 1 then all[#all + 1] = string.format('%d', port + count - 1) end -- its others on offer have no record
  end
  local held = first_held(keys, now, outside_of(first, last, all))
  if found[1] ~= '0' then return held, of .. found[1] end
  return held, of == 'o' and 'p0' or nil
end

return first_held, held_outside, scan_held
