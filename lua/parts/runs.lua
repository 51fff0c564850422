local call = redis.call

-- The ports never handed out, as runs: `fresh` has the last port of each, scored by the first, and `run_lengths` how long it
-- is, for those of 2 and more. Where single ports are taken from a run, `run_lengths` is left as it was; take_run puts it right.

local function set_run(keys, first, last)
  call('ZADD', keys.fresh, first, string.format('%d', last))
  if last > first then
    call('ZADD', keys.run_lengths, last - first + 1, string.format('%d', last))
  else
    call('ZREM', keys.run_lengths, string.format('%d', last))
  end
end

local function drop_run(keys, last)
  call('ZREM', keys.fresh, last)
  call('ZREM', keys.run_lengths, last)
end

-- Makes ports fresh that are in no run, and joins them to the runs beside them.
local function add_run(keys, first, last)
  local before = string.format('%d', first - 1)
  local start = call('ZSCORE', keys.fresh, before)
  if start then
    drop_run(keys, before)
    first = tonumber(start)
  end
  local after = call('ZRANGEBYSCORE', keys.fresh, last + 1, last + 1)[1]
  set_run(keys, first, tonumber(after) or last)
end

-- The run that a port is in: first, last; nil if it is in none.
local function run_of(keys, port)
  local run = call('ZREVRANGEBYSCORE', keys.fresh, port, '-inf', 'WITHSCORES', 'LIMIT', '0', '1')
  if run[1] and tonumber(run[1]) >= tonumber(port) then return tonumber(run[2]), tonumber(run[1]) end
end

-- Takes the ports from-to out of the run first-last.
local function cut_run(keys, first, last, from, to)
  if to < last then
    set_run(keys, to + 1, last)
  else
    drop_run(keys, string.format('%d', last))
  end
  if from > first then set_run(keys, first, from - 1) end
end

-- Takes the lowest ports of the shortest run that is long enough: the first of them; nil if there is none, and whether it
-- gave up. Each run that turns out shorter than `run_lengths` has it was shortened since the last search, and is put right:
-- 50 at most in one script, which counts them in picking.put_right.
local function take_run(keys, picking, count)
  while picking.put_right < 50 do
    local last = call('ZRANGEBYSCORE', keys.run_lengths, count, '+inf', 'LIMIT', '0', '1')[1]
    if not last then return nil, false end
    local first = tonumber(call('ZSCORE', keys.fresh, last))
    if first and last - first + 1 >= count then
      if last - first + 1 == count then drop_run(keys, last) else set_run(keys, first + count, tonumber(last)) end
      return first
    end
    if first then set_run(keys, first, tonumber(last)) else call('ZREM', keys.run_lengths, last) end
    picking.put_right = picking.put_right + 1
  end
  return nil, true
end

-- How many ports in a row are free around some that are, not counted beyond `enough`.
local function row_around(keys, free_before, first, last, enough)
  local length = last - first + 1
  for _, step in ipairs({-1, 1}) do
    local port = step < 0 and first - 1 or last + 1
    while length < enough do
      local score, run_first, run_last = call('ZSCORE', keys.free, string.format('%d', port)), nil, nil
      if not score then run_first, run_last = run_of(keys, port) end
      if run_first then
        length = length + run_last - run_first + 1
        port = step < 0 and run_first - 1 or run_last + 1
      elseif score and tonumber(score) <= tonumber(free_before) then
        length = length + 1
        port = port + step
      else
        break
      end
    end
  end
  return length
end

return set_run, drop_run, add_run, run_of, cut_run, take_run, row_around
