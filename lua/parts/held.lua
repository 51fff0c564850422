-- What of the service is held outside of some ports.

-- The words for a port that is held, nil for one that is not.
local function held_as(port, score, allocation, lease)
  local at_time = score and tonumber(score) > tonumber(now)
  if allocation and (not lease or tonumber(lease) > tonumber(now)) then return 'port ' .. port .. ' is allocated' end
  if at_time then return 'port ' .. port .. ' is on offer' end
end

-- Looks at ports, 250 at most: the words for the first that is held, nil where none is.
local function first_held(all)
  if #all == 0 then return nil end
  local scores = call('ZMSCORE', free, unpack(all))
  local allocations, ends = call('HMGET', ports, unpack(all)), call('ZMSCORE', leases, unpack(all))
  for i, port in ipairs(all) do
    local held = held_as(port, scores[i], allocations[i], ends[i])
    if held then return held end
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
-- where there is none, and whether those were all.
local function held_outside(first, last)
  local until_then = call('ZRANGEBYSCORE', free, '(' .. now, '+inf', 'LIMIT', '0', '250')
  local allocated = call('HLEN', ports)
  local some = allocated <= 250 and call('HKEYS', ports) or call('HRANDFIELD', ports, '250')
  local held = first_held(outside_of(first, last, until_then)) or first_held(outside_of(first, last, some))
  return held, #until_then < 250 and allocated <= 250
end

-- Goes on with a look at all that is on offer, and then all that is allocated, some 250 at a time: the words for the first that is
-- held outside of first-last, and where to go on, nil where that was all. It begins at 'o0'. In this order, since an offer that is
-- accepted meanwhile goes from the one to the other.
local function scan_held(first, last, at)
  local of, cursor = string.match(at, '^(%l)(%d+)$')
  local found
  if of == 'o' then
    found = call('HSCAN', offers, cursor, 'COUNT', '250')
  else
    found = call('HSCAN', ports, cursor, 'COUNT', '250')
  end
  local all = {}
  for i = 1, #found[2], 2 do
    local port, count = found[2][i], string.match(found[2][i + 1], '"count":(%d+)')
    all[#all + 1] = port
    if count then all[#all + 1] = string.format('%d', port + count - 1) end -- of a block on offer the first alone has the record
  end
  local held = first_held(outside_of(first, last, all))
  if found[1] ~= '0' then return held, of .. found[1] end
  return held, of == 'o' and 'p0' or nil
end
