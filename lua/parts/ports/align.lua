local call = redis.call
-- include runs: cut_run

-- Rows of ports of which the first is a multiple of `align`.

-- The first multiple of `align` from a port on.
local function first_multiple(port, align)
  return math.ceil(port / align) * align
end

-- At how many ports of a range `count` ports can begin, and the first of them.
local function starts_in(range, count, align)
  local first = first_multiple(range[1], align)
  return math.max(0, math.floor((range[2] - count + 1 - first) / align) + 1), first
end

-- Whether `count` ports can begin anywhere in some ranges.
local function have_start(ranges, count, align)
  for _, range in ipairs(ranges) do
    if starts_in(range, count, align) > 0 then return true end
  end
  return false
end

-- A run that is shorter than `count` + `align` - 1 may have such a row, or not; no key tells. So a search looks at all
-- runs, 1,000 in a script. How far it has come is in `unaligned` of the service, for each that has not ended:
-- ' ALIGN/COUNT<PORT' says that no run has this row that begins before this port. Ports that are taken from runs make
-- that no less true. picking.unaligned has the text, '' for none.

-- Records how far a search has come, nil if it has ended. Of 8 that have not ended, the oldest begins again.
local function set_unaligned(keys, picking, shape, port)
  local old = picking.unaligned
  local text = string.gsub(old, ' ' .. shape .. '<%d+', '')
  if port then
    local _, others = string.gsub(text, '<', '')
    if others > 7 then text = string.match(text, '^ %S+(.*)$') end
    text = string.format('%s %s<%d', text, shape, port)
  end
  if text == old then return end
  picking.unaligned = text
  if text == '' then
    call('HDEL', keys.service, 'unaligned')
  else
    call('HSET', keys.service, 'unaligned', text)
  end
end

-- Records that a run begins at this port which has become longer.
local function note_longer_run(keys, picking, first)
  if picking.unaligned == '' then return end
  local text = string.gsub(picking.unaligned, '<(%d+)', function(port) return '<' .. math.min(port, first) end)
  if text ~= picking.unaligned then call('HSET', keys.service, 'unaligned', text) end
  picking.unaligned = text
end

-- Cuts `count` ports, the first a multiple of `align`, from the first run that has them, and returns the first; or nil,
-- and whether another script is to look on. picking.looked counts the runs.
local function cut_aligned(keys, picking, count, align)
  local shape = string.format('%d/%d', align, count)
  local from = tonumber(string.match(picking.unaligned, ' ' .. shape .. '<(%d+)') or 0)
  while picking.looked < 1000 do
    local runs = call('ZRANGEBYSCORE', keys.fresh, from, '+inf', 'WITHSCORES', 'LIMIT', '0', '250')
    for i = 1, #runs, 2 do
      local first, last = tonumber(runs[i + 1]), tonumber(runs[i])
      local start = first_multiple(first, align)
      if start + count - 1 <= last then
        cut_run(keys, first, last, start, start + count - 1)
        return start
      end
      from = first + 1
    end
    picking.looked = picking.looked + #runs / 2
    if #runs < 500 then
      set_unaligned(keys, picking, shape, nil)
      return nil, false
    end
  end
  set_unaligned(keys, picking, shape, from)
  return nil, true
end
