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
