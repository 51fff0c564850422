-- The ports never handed out, as runs: `fresh` has the last port of each, scored by the first, and `room` how long it is,
-- for those of 2 and more. Where single ports are taken from a run, `room` is left as it was; take_run puts it right.
local function set_run(first, last)
  call('ZADD', fresh, first, string.format('%d', last))
  if last > first then
    call('ZADD', room, last - first + 1, string.format('%d', last))
  else
    call('ZREM', room, string.format('%d', last))
  end
end

local function drop_run(last)
  call('ZREM', fresh, last)
  call('ZREM', room, last)
end

-- Makes ports fresh that are in no run, and joins them to the runs beside them.
local function add_run(first, last)
  local before = string.format('%d', first - 1)
  local start = call('ZSCORE', fresh, before)
  if start then
    drop_run(before)
    first = tonumber(start)
  end
  local after = call('ZRANGEBYSCORE', fresh, last + 1, last + 1)[1]
  set_run(first, tonumber(after) or last)
end

-- The run that a port is in: first, last; nil where it is in none.
local function run_of(port)
  local run = call('ZREVRANGEBYSCORE', fresh, port, '-inf', 'WITHSCORES', 'LIMIT', '0', '1')
  if run[1] and tonumber(run[1]) >= tonumber(port) then return tonumber(run[2]), tonumber(run[1]) end
end

-- Takes the ports from-to out of the run first-last.
local function cut_run(first, last, from, to)
  if to < last then
    set_run(to + 1, last)
  else
    drop_run(string.format('%d', last))
  end
  if from > first then set_run(first, from - 1) end
end

-- Takes the lowest ports of the shortest run that is long enough: the first of them; nil where there is none, and whether it
-- gave up. Each run that turns out shorter than `room` has it was shortened since the last search, and is put right: 50 at
-- most in one script.
local put_right = 0
local function take_run(count)
  while put_right < 50 do
    local last = call('ZRANGEBYSCORE', room, count, '+inf', 'LIMIT', '0', '1')[1]
    if not last then return nil, false end
    local first = tonumber(call('ZSCORE', fresh, last))
    if first and last - first + 1 >= count then
      if last - first + 1 == count then drop_run(last) else set_run(first + count, tonumber(last)) end
      return first
    end
    if first then set_run(first, tonumber(last)) else call('ZREM', room, last) end
    put_right = put_right + 1
  end
  return nil, true
end
