-- The default and the longest lease of a service, in ms. Its field lease_bounds has both as '60000 3600000', '0' for
-- none; a service without either has no such field.

-- Parses them: the lease of what asks for none, which is the longest if there is no default, and the longest. Each is
-- nil if there is none.
local function parse_bounds(bounds)
  local default, longest = string.match(bounds or '', '^(%d+) (%d+)$')
  if longest == '0' then longest = nil end
  if default == '0' then default = nil end
  return default or longest, longest
end

-- What is wrong with a lease that is asked for; nil if nothing is.
local function too_long(lease, longest)
  if not longest or tonumber(lease) <= tonumber(longest) then return nil end
  return 'is longer than ' .. longest / 1000 .. ' s, which is the longest of the service'
end

-- The lease that a renewal starts: the one asked for ('0': none), or that of before, shortened if it is longer than the
-- service allows by now, or the default. Nil, and what is wrong, if there is none, or it is too long.
local function lease_of_renewal(bounds, asked, lease)
  local default, longest = parse_bounds(bounds)
  if asked ~= '0' then
    local wrong = too_long(asked, longest)
    return not wrong and asked or nil, wrong
  end
  if lease and too_long(lease, longest) then return longest end
  return lease or default, 'is required: this allocation has none yet'
end
