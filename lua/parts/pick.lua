-- Picks ports for wants, and takes them out of everybody's reach at once. Where one want cannot have its ports, those of the
-- others are put back: all of them, or none.

-- What was picked: ports that were given back, as pairs of score and port, and pieces of runs of fresh ones.
local picked, pieces = {}, {}

local function put_back()
  if #picked > 0 then call('ZADD', free, unpack(picked)) end
  for _, piece in ipairs(pieces) do add_run(piece[1], piece[2]) end
  picked, pieces = {}, {}
end

-- Picks ports that were given back: a list of them, and their scores.
local function pick_back(some, scores)
  if #some == 0 then return end
  call('ZREM', free, unpack(some))
  for i, port in ipairs(some) do
    picked[#picked + 1] = scores[i]
    picked[#picked + 1] = port
  end
end

-- Picks fresh ports out of the run first-last.
local function pick_fresh(first, last, from, to)
  cut_run(first, last, from, to)
  pieces[#pieces + 1] = {from, to}
end

-- Picks one port: whether it could.
local function pick_port(port)
  local score = call('ZSCORE', free, port)
  if score then
    if tonumber(score) > tonumber(free_before) then return false end
    pick_back({port}, {score})
    return true
  end
  local first, last = run_of(port)
  if first then pick_fresh(first, last, tonumber(port), tonumber(port)) end
  return first ~= nil
end

-- Looks whether the ports that a want names are free: the first that is not, and in how many ms it will be, where that is known.
-- Those that are stand in want.back, if they were given back, and in want.fresh, as pieces of runs: from, to, and the run's ends.
local function look_at_certain(want)
  local from, to, all = tonumber(want.certain), want.certain + want.count - 1, {}
  want.back, want.scores, want.fresh = {}, {}, {}
  for port = from, to do all[#all + 1] = string.format('%d', port) end
  local scores, i = call('ZMSCORE', free, unpack(all)), 1
  while i <= #all do
    if scores[i] then
      local wait = scores[i] - free_before
      if wait > 0 then return all[i], wait end
      want.back[#want.back + 1], want.scores[#want.scores + 1] = all[i], scores[i]
      i = i + 1
    else
      local first, last = run_of(all[i])
      if not first then
        local score = call('ZSCORE', resting, all[i])
        return all[i], score and score - now
      end
      local stop = math.min(last, to)
      want.fresh[#want.fresh + 1] = {from + i - 1, stop, first, last}
      i = stop - from + 2
    end
  end
end

-- Cuts pieces out of runs that look_at_certain has found, from the last to the first: what is left above each is a run then.
local function cut_pieces(some)
  table.sort(some, function(a, b) return a[1] > b[1] end)
  local below, runs, lengths, gone, short = {}, {}, {}, {}, {}
  local function leave_run(first, last)
    local member = string.format('%d', last)
    if first > last then
      gone[#gone + 1] = member
    else
      runs[#runs + 1] = first
      runs[#runs + 1] = member
    end
    if last > first then
      lengths[#lengths + 1] = last - first + 1
      lengths[#lengths + 1] = member
    else
      short[#short + 1] = member
    end
  end
  for _, piece in ipairs(some) do
    local from, to, first = piece[1], piece[2], piece[3]
    leave_run(to + 1, below[first] or piece[4])
    below[first] = from - 1
  end
  for first, last in pairs(below) do
    if last >= first then leave_run(first, last) end
  end
  if #gone > 0 then call('ZREM', fresh, unpack(gone)) end
  if #runs > 0 then call('ZADD', fresh, unpack(runs)) end
  if #short > 0 then call('ZREM', room, unpack(short)) end
  if #lengths > 0 then call('ZADD', room, unpack(lengths)) end
end

-- Picks just the ports that wants name, which look_at_certain has found free.
local function pick_certain(wants)
  local back, scores, some = {}, {}, {}
  for _, want in ipairs(wants) do
    if want.certain then
      for i, port in ipairs(want.back) do back[#back + 1], scores[#scores + 1] = port, want.scores[i] end
      for _, piece in ipairs(want.fresh) do some[#some + 1], pieces[#pieces + 1] = piece, piece end
      want.port = want.certain
    end
  end
  pick_back(back, scores)
  if #some > 0 then cut_pieces(some) end
end

-- Makes ports that were given back fresh, so that runs show: those that have been free the longest, 100 at most. How many, and
-- whether there are more.
local function gather()
  local given_back = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '100')
  if #given_back == 0 then return 0, false end
  if not clear_all(given_back, 100) then return 0, true end
  tidied = tidied + #given_back
  call('ZREM', free, unpack(given_back))
  table.sort(given_back, function(a, b) return tonumber(a) < tonumber(b) end)
  local first
  for i, port in ipairs(given_back) do
    first = first or tonumber(port)
    if tonumber(given_back[i + 1]) ~= port + 1 then
      add_run(first, tonumber(port))
      first = nil
    end
  end
  return #given_back, #given_back == 100
end

-- Picks so many ports in a row: the first of them; nil, and whether another search may find some.
local gathered, left = false, false -- whether it gathered ports, and left some for another call
local function pick_block(count)
  local first, gave_up = take_run(count)
  if not first and not gave_up and not gathered then
    gathered, left = true, select(2, gather())
    first, gave_up = take_run(count)
  end
  if not first then return nil, gave_up or left end
  pieces[#pieces + 1] = {first, first + count - 1}
  return string.format('%d', first)
end

-- Picks so many ports, each any one: a list of them, shorter where there are not as many.
local function pick_any(count)
  local all, found, scores = call('ZRANGEBYSCORE', free, '-inf', free_before, 'WITHSCORES', 'LIMIT', '0', count), {}, {}
  for i = 1, #all, 2 do
    found[#found + 1], scores[#scores + 1] = all[i], all[i + 1]
  end
  pick_back(found, scores)
  while #found < count do
    local run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
    if #run == 0 then break end
    local first, last = tonumber(run[2]), tonumber(run[1])
    local stop = math.min(last, first + count - #found - 1)
    if stop < last then call('ZADD', fresh, stop + 1, run[1]) else drop_run(run[1]) end
    pieces[#pieces + 1] = {first, stop}
    for port = first, stop do found[#found + 1] = string.format('%d', port) end
  end
  return found
end

-- Picks the ports of all wants: those that are certain, blocks from the longest to the shortest, those that are preferred, and
-- then any. 'picked'; 'none' where there are not as many, or 'again' where another call may find a block.
local function pick(wants)
  local blocks, any = {}, {}
  pick_certain(wants)
  for _, want in ipairs(wants) do
    if not want.certain and want.count > 1 then
      blocks[#blocks + 1] = want
    end
  end
  table.sort(blocks, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.place < b.place
  end)
  for _, want in ipairs(blocks) do
    local first, more = pick_block(want.count)
    if not first then return more and 'again' or 'none' end
    want.port = first
  end
  for _, want in ipairs(wants) do
    if want.prefer and pick_port(want.prefer) then want.port = want.prefer end
    if not want.port then any[#any + 1] = want end
  end
  if #any == 0 then return 'picked' end
  local found = pick_any(#any)
  for i, want in ipairs(any) do want.port = found[i] end
  return #found == #any and 'picked' or 'none'
end
