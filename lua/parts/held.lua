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

-- Looks for a port that is held outside of first-last among those that are held at all, or 250 of them: the words for it, nil
-- where there is none, and whether those were all.
local function held_outside(first, last)
  local until_then = call('ZRANGEBYSCORE', free, '(' .. now, '+inf', 'LIMIT', '0', '250')
  local allocated = call('HLEN', ports)
  local some = allocated <= 250 and call('HKEYS', ports) or call('HRANDFIELD', ports, '250')
  local outside = {}
  for _, found in ipairs({until_then, some}) do
    local those = {}
    for _, port in ipairs(found) do
      if port - first < 0 or port - last > 0 then those[#those + 1] = port end
    end
    outside[#outside + 1] = those
  end
  local held = first_held(outside[1]) or first_held(outside[2])
  return held, #until_then < 250 and allocated <= 250
end

-- Looks at the ports from-to one after the other, some 250 of those that were handed out: the words for the first that is held,
-- nil where none is, and from where to go on, nil where those were all.
local function walk(from, to)
  local work, all = 0, {}
  while from <= to and work < 250 do
    local first, last = run_of(from)
    work = work + (first and 10 or 1)
    if first then
      from = last + 1
    else
      all[#all + 1] = string.format('%d', from)
      from = from + 1
    end
  end
  return first_held(all), from <= to and from or nil
end
