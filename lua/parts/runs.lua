local call = redis.call
-- include ports/align: first_multiple

-- The ports never handed out, as runs of consecutive ports: `fresh` has the last port of each run, scored by the
-- first. `run_lengths` has the lengths of runs of 2 ports and more. If single ports are cut from a run, its length
-- there stays as it was; cut_shortest corrects it.

-- Writes a run.
local function set_run(keys, first, last)
  call('ZADD', keys.fresh, first, string.format('%d', last))
  if last > first then
    call('ZADD', keys.run_lengths, last - first + 1, string.format('%d', last))
  else
    call('ZREM', keys.run_lengths, string.format('%d', last))
  end
end

-- Removes the run that ends with this port.
local function drop_run(keys, last)
  call('ZREM', keys.fresh, last)
  call('ZREM', keys.run_lengths, last)
end

-- Adds ports that are in no run, and joins them with the runs beside them. Returns the first port of the run that they
-- are in then.
local function add_run(keys, first, last)
  local before = string.format('%d', first - 1)
  local start = call('ZSCORE', keys.fresh, before)
  if start then
    drop_run(keys, before)
    first = tonumber(start)
  end
  local after = call('ZRANGEBYSCORE', keys.fresh, last + 1, last + 1)[1]
  set_run(keys, first, tonumber(after) or last)
  return first
end

-- The first and last port of the run that a port is in; nil if it is in none.
local function run_of(keys, port)
  local run = call('ZREVRANGEBYSCORE', keys.fresh, port, '-inf', 'WITHSCORES', 'LIMIT', '0', '1')
  if run[1] and tonumber(run[1]) >= tonumber(port) then return tonumber(run[2]), tonumber(run[1]) end
end

-- Cuts the ports from-to out of the run first-last.
local function cut_run(keys, first, last, from, to)
  if to < last then
    set_run(keys, to + 1, last)
  else
    drop_run(keys, string.format('%d', last))
  end
  if from > first then set_run(keys, first, from - 1) end
end

-- Cuts `count` ports, the first a multiple of `align`, from the start of the shortest run that is long enough wherever
-- it begins, and returns the first; or nil, and whether it gave up. A run that is shorter than `run_lengths` says was
-- cut since the last search, and its length is corrected. A script corrects 50 lengths at most; picking.corrected
-- counts them.
local function cut_shortest(keys, picking, count, align)
  local enough = count + align - 1
  while picking.corrected < 50 do
    local last = call('ZRANGEBYSCORE', keys.run_lengths, enough, '+inf', 'LIMIT', '0', '1')[1]
    if not last then return nil, false end
    local first = tonumber(call('ZSCORE', keys.fresh, last))
    if first and last - first + 1 >= enough then
      local from = first_multiple(first, align)
      cut_run(keys, first, tonumber(last), from, from + count - 1)
      return from
    end
    if first then set_run(keys, first, tonumber(last)) else call('ZREM', keys.run_lengths, last) end
    picking.corrected = picking.corrected + 1
  end
  return nil, true
end

-- The length of the row of free ports around first-last, which are free. It counts no further than `enough`.
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
