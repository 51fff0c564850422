local call = redis.call
-- include ranges: first_within
-- include record: count_of

-- Looks for ports that are held among those that leave the ranges of a service.

-- How each of some ports, 250 at most, is held, in words by its place; none of a port that is not held. Also returns
-- the scores.
local function holds_of(keys, now, all)
  if #all == 0 then return {}, {} end
  local time, holds = tonumber(now), {}
  local scores = call('ZMSCORE', keys.free, unpack(all))
  local allocations, ends = call('HMGET', keys.ports, unpack(all)), call('ZMSCORE', keys.leases, unpack(all))
  for i, port in ipairs(all) do
    local is_allocated = allocations[i] and (not ends[i] or tonumber(ends[i]) > time)
    if is_allocated then
      holds[i] = 'port ' .. port .. ' is allocated'
    elseif scores[i] and tonumber(scores[i]) > time then
      holds[i] = 'port ' .. port .. ' is on offer'
    end
  end
  return holds, scores
end

-- Says which of some ports, 250 at most, is held, in words; nil if none is.
local function first_held(keys, now, all)
  local holds = holds_of(keys, now, all)
  for i = 1, #all do
    if holds[i] then return holds[i] end
  end
end

-- Those of some ports that lie in these ranges.
local function those_within(ranges, some)
  local within = {}
  for _, port in ipairs(some) do
    local number = tonumber(port)
    if first_within(ranges, number, number) then within[#within + 1] = port end
  end
  return within
end

-- Looks at all ports that are held, or 250 of them. Says in words which of them is held in these ranges, nil if none
-- is, and whether those were all.
local function held_within(keys, now, ranges)
  local until_then = call('ZRANGEBYSCORE', keys.free, '(' .. now, '+inf', 'LIMIT', '0', '250')
  local allocated = call('HLEN', keys.ports)
  local some = allocated <= 250 and call('HKEYS', keys.ports) or call('HRANDFIELD', keys.ports, '250')
  local held = first_held(keys, now, those_within(ranges, until_then))
    or first_held(keys, now, those_within(ranges, some))
  return held, #until_then < 250 and allocated <= 250
end

-- Looks at some 250 of the ports that are held. `at` says where: 'o0' at first. Says in words which of them is held in
-- these ranges, and where to go on, nil if those were all. Offers come before allocations, since an offer that is
-- accepted meanwhile becomes an allocation.
local function scan_held(keys, now, ranges, at)
  local of, cursor = string.match(at, '^(%l)(%d+)$')
  local key = of == 'o' and keys.offers or keys.ports
  local found, all = call('HSCAN', key, cursor, 'COUNT', '250'), {}
  for i = 1, #found[2], 2 do
    -- Of an offered block only the first port has the record. Nobody holds a part of it.
    local port = tonumber(found[2][i])
    local within = first_within(ranges, port, port + count_of(found[2][i + 1]) - 1)
    if within then all[#all + 1] = string.format('%d', within) end
  end
  local held = first_held(keys, now, all)
  if found[1] ~= '0' then return held, of .. found[1] end
  return held, of == 'o' and 'p0' or nil
end
