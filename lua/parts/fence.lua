local call = redis.call

-- Whether the last fence of the pool is lower than `seen`, the highest that the server saw ('0': none): then the
-- state in Redis is an older one. A pool without a fence is only behind if `seen` is less than an hour old, since the
-- fence of a pool without services expires. `microseconds` is the time.
local function is_behind(last, seen, microseconds)
  if seen == '0' then return false end
  if not last then return seen - microseconds > -3600000000 end
  return last - seen < 0
end

-- Generates `count` consecutive fences for new allocations, and returns the first, as a string. It is the time in
-- microseconds, or one more than the last fence of the pool, or than `least`, the highest that the server knows of,
-- if that is higher. So fences grow even if the clock stepped back, or the last fence or the whole state was lost. If
-- the last fence is behind `seen`, nothing is changed, and the answer is nil.
local function next_fence(key, microseconds, count, seen, least)
  local last, first = call('SET', key, microseconds, 'GET'), tonumber(microseconds)
  if is_behind(last, seen, microseconds) then
    if last then call('SET', key, last) else call('UNLINK', key) end
    return nil
  end
  local before = math.max(tonumber(last or 0), tonumber(least))
  local is_late = before >= first
  if is_late then first = before + 1 end
  if is_late or count > 1 then call('SET', key, string.format('%d', first + count - 1)) end
  return is_late and string.format('%d', first) or microseconds
end

-- The highest of some fences: `n` of ARGV, from `first` on, `step` apart.
local function highest_of(first, step, n)
  local highest = ARGV[first]
  for i = first + step, first + step * (n - 1), step do
    if ARGV[i] ~= highest and ARGV[i] - highest > 0 then highest = ARGV[i] end
  end
  return highest
end
