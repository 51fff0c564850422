local call = redis.call

-- Whether the last fence of the pool is behind one that a server saw, since the state is an older one. There is none in a
-- pool that had no service for hours.
local function is_behind(last, seen, time)
  if seen == '0' then return false end
  if not last then return seen - time[1] * 1000000 > -3600000000 end
  return last - seen < 0
end

-- The first of the numbers of so many new allocations, as a string: the time in microseconds, or the one after the last of the
-- pool, or after `least`, the highest that the server knows of, if that is as late. So they grow, even if the clock stepped back,
-- or the last ones, or all of the state, were lost meanwhile. Nil, and nothing is changed, if the last one is behind `seen`, the
-- highest of the pool that the server saw.
local function next_fence(key, time, count, seen, least)
  local at = time[1] .. string.sub('00000' .. time[2], -6)
  local last, first = call('SET', key, at, 'GET'), tonumber(at)
  if is_behind(last, seen, time) then
    if last then call('SET', key, last) else call('UNLINK', key) end
    return nil
  end
  local before = math.max(tonumber(last or 0), tonumber(least))
  local is_late = before >= first
  if is_late then first = before + 1 end
  if is_late or count > 1 then call('SET', key, string.format('%d', first + count - 1)) end
  return is_late and string.format('%d', first) or at
end

return is_behind, next_fence
