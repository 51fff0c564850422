local call = redis.call

-- The ranges of a service: a list of {first, last} in their order, of which no two overlap or touch. Their text is
-- '5000-5099,7000-7099'. `start` and `end` of the service are the first and the last of all ports; `ranges` has the
-- text if there are several.

-- Reads a text.
local function parse_ranges(text)
  local ranges = {}
  for first, last in string.gmatch(text, '(%d+)%-(%d+)') do
    ranges[#ranges + 1] = {tonumber(first), tonumber(last)}
  end
  return ranges
end

-- Writes a text.
local function text_of(ranges)
  local parts = {}
  for i, range in ipairs(ranges) do parts[i] = string.format('%d-%d', range[1], range[2]) end
  return table.concat(parts, ',')
end

-- The ranges of a service from its fields. A server that knows no `ranges` may have changed start or end since they
-- were written: then it has one range.
local function ranges_of(start, stop, several)
  if several and string.match(several, '^%d+') == start and string.match(several, '%d+$') == stop then
    return parse_ranges(several)
  end
  return {{tonumber(start), tonumber(stop)}}
end

-- Reads the ranges of a service.
local function read_ranges(keys)
  return ranges_of(unpack(call('HMGET', keys.service, 'start', 'end', 'ranges')))
end

-- How many ports some ranges have, and how many the longest has.
local function size_of(ranges)
  local size, longest = 0, 0
  for _, range in ipairs(ranges) do
    size = size + range[2] - range[1] + 1
    longest = math.max(longest, range[2] - range[1] + 1)
  end
  return size, longest
end

-- Whether one of the ranges has all ports first-last.
local function have_all(ranges, first, last)
  for _, range in ipairs(ranges) do
    if first >= range[1] and last <= range[2] then return true end
  end
  return false
end

-- The first of the ports first-last that is in some ranges; nil if none is.
local function first_within(ranges, first, last)
  for _, range in ipairs(ranges) do
    if first <= range[2] and last >= range[1] then return math.max(first, range[1]) end
  end
end

-- What some ranges have, and others have not.
local function subtract(ranges, others)
  local left, i = {}, 1
  for _, range in ipairs(ranges) do
    local first, last = range[1], range[2]
    while others[i] and others[i][2] < first do i = i + 1 end
    local at = i
    while first <= last and others[at] and others[at][1] <= last do
      if others[at][1] > first then left[#left + 1] = {first, others[at][1] - 1} end
      first = others[at][2] + 1
      at = at + 1
    end
    if first <= last then left[#left + 1] = {first, last} end
  end
  return left
end

-- Joins ranges with others that do not overlap them.
local function join_ranges(ranges, others)
  local all, joined = {}, {}
  for _, range in ipairs(ranges) do all[#all + 1] = range end
  for _, range in ipairs(others) do all[#all + 1] = range end
  table.sort(all, function(a, b) return a[1] < b[1] end)
  for _, range in ipairs(all) do
    local last = joined[#joined]
    if last and last[2] + 1 == range[1] then last[2] = range[2] else joined[#joined + 1] = {range[1], range[2]} end
  end
  return joined
end
