local call = redis.call
-- include runs: drop_run, set_run

-- Holds the runs of fresh ports against each other, and against their lengths. `report` is what begin_report returns.

-- The runs of fresh ports that begin among the ports first-last, and some before them that may reach into them, in
-- their order. Two that overlap are taken for one.
local function read_runs(keys, first, last, report)
  local runs, found = {}, {}
  local before = call('ZREVRANGEBYSCORE', keys.fresh, '(' .. first, '-inf', 'WITHSCORES', 'LIMIT', '0', '8')
  for i = #before - 1, 1, -2 do
    found[#found + 1], found[#found + 2] = before[i], before[i + 1]
  end
  for _, each in ipairs(call('ZRANGEBYSCORE', keys.fresh, first, last, 'WITHSCORES')) do found[#found + 1] = each end
  for i = 1, #found, 2 do
    local from, to = tonumber(found[i + 1]), tonumber(found[i])
    local previous = runs[#runs]
    if to < from and from >= first then
      report('run_backwards', to, 'a run of fresh ports ends before it begins, at ' .. from, function()
        drop_run(keys, found[i])
      end)
    elseif to >= from and previous and from <= previous[2] then
      if from >= first then
        report('runs_overlap', from, 'two runs of fresh ports overlap: some ports would be handed out twice', function()
          drop_run(keys, string.format('%d', previous[2]))
          drop_run(keys, found[i])
          set_run(keys, previous[1], math.max(previous[2], to))
        end)
      end
      previous[2] = math.max(previous[2], to)
    elseif to >= from then
      runs[#runs + 1] = {from, to}
    end
  end
  return runs
end

-- Blocks are cut from run_lengths: a run of several ports that it lacks, or has as a shorter one, is not found.
local function check_lengths(keys, runs, first, range_end, report)
  for _, run in ipairs(runs) do
    local length = run[2] - run[1] + 1
    local known = call('ZSCORE', keys.run_lengths, string.format('%d', run[2]))
    if run[1] >= first and run[2] <= range_end and length > 1 and tonumber(known or 0) < length then
      local detail = string.format('a run of %d fresh ports is known as one of %s', length, known or 0)
      report('run_length', run[2], detail, function() set_run(keys, run[1], run[2]) end)
    end
  end
end
