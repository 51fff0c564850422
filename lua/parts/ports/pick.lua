local call = redis.call
-- include clear_ended: clear_ended
-- include ports/by_name: may_return
-- include ports/align: cut_aligned, note_longer_run
-- include runs: add_run, cut_shortest, drop_run, run_of

-- Picks ports for requests: no other script can pick a port once it is picked. If one request cannot have its ports,
-- those of the others are put back.

-- What a script has picked, and what else it has done:
--   back       picked ports that were given back, as pairs of score and port
--   pieces     picked ports that were never handed out, as pairs of first and last
--   cleared    how many ports it has cleared or coalesced
--   corrected  how many lengths of runs it has corrected; `looked`: at how many runs cut_aligned has looked
--   unaligned  how far searches of cut_aligned have come
--   coalesced  whether it has coalesced ports; `left`: whether it has left some to another script
local function new_picking(service)
  return {
    back = {}, pieces = {}, cleared = 0, corrected = 0, looked = 0, unaligned = service.unaligned or '',
    coalesced = false, left = false,
  }
end

-- Puts back all that was picked.
local function put_back(keys, picking)
  if #picking.back > 0 then call('ZADD', keys.free, unpack(picking.back)) end
  for _, piece in ipairs(picking.pieces) do note_longer_run(keys, picking, add_run(keys, piece[1], piece[2])) end
  picking.back, picking.pieces = {}, {}
end

-- Picks ports that were given back, from `free`.
local function pick_given_back(keys, picking, some, scores)
  if #some == 0 then return end
  local back = picking.back
  call('ZREM', keys.free, unpack(some))
  for i, port in ipairs(some) do
    back[#back + 1] = scores[i]
    back[#back + 1] = port
  end
end

-- Looks whether the exact ports of a request are free, or those that it prefers. Returns the first that is not, and in
-- how many ms it is, if that is known. Those that are free are noted in the request: in `back` and `scores` the ports
-- that were given back, in `fresh` the others, as pieces of runs: from, to, and the first and last port of the run.
local function look_at_exact(keys, service, request)
  local first_port, all = request.exact or request.preferred, {}
  local from, to = tonumber(first_port), first_port + request.count - 1
  request.back, request.scores, request.fresh = {}, {}, {}
  for port = from, to do all[#all + 1] = string.format('%d', port) end
  local scores, i = call('ZMSCORE', keys.free, unpack(all)), 1
  while i <= #all do
    if scores[i] then
      local wait = scores[i] - service.free_before
      if wait > 0 and not may_return(keys, service.now, request, all[i], scores[i]) then return all[i], wait end
      request.back[#request.back + 1], request.scores[#request.scores + 1] = all[i], scores[i]
      i = i + 1
    else
      local first, last = run_of(keys, all[i])
      if not first then
        local score = call('ZSCORE', keys.resting, all[i])
        return all[i], score and score - service.now
      end
      local stop = math.min(last, to)
      request.fresh[#request.fresh + 1] = {from + i - 1, stop, first, last}
      i = stop - from + 2
    end
  end
end

-- Cuts pieces, as of look_at_exact, out of their runs. It begins with the last piece: what is left above a piece is a
-- run.
local function cut_pieces(keys, some)
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
  if #gone > 0 then call('ZREM', keys.fresh, unpack(gone)) end
  if #runs > 0 then call('ZADD', keys.fresh, unpack(runs)) end
  if #short > 0 then call('ZREM', keys.run_lengths, unpack(short)) end
  if #lengths > 0 then call('ZADD', keys.run_lengths, unpack(lengths)) end
end

-- Picks the ports of requests that look_at_exact has found free.
local function pick_exact(keys, picking, requests)
  local back, scores, some, pieces = {}, {}, {}, picking.pieces
  for _, request in ipairs(requests) do
    for i, port in ipairs(request.back) do back[#back + 1], scores[#scores + 1] = port, request.scores[i] end
    for _, piece in ipairs(request.fresh) do some[#some + 1], pieces[#pieces + 1] = piece, piece end
    request.port = request.exact or request.preferred
  end
  pick_given_back(keys, picking, back, scores)
  if #some > 0 then cut_pieces(keys, some) end
end

-- Picks the ports that a request prefers, and returns whether they were free.
local function pick_preferred(keys, service, picking, request)
  if not request.preferred or look_at_exact(keys, service, request) then return false end
  pick_exact(keys, picking, {request})
  return true
end

-- Moves the ports that have been free the longest, 100 at most, to the runs, so that blocks can be cut from them.
-- Returns whether there are more.
local function coalesce(keys, free_before, picking)
  local given_back = call('ZRANGEBYSCORE', keys.free, '-inf', free_before, 'LIMIT', '0', '100')
  if #given_back == 0 then return false end
  local are_clear, found = clear_ended(keys, given_back, 100)
  picking.cleared = picking.cleared + found
  if not are_clear then return true end
  picking.cleared = picking.cleared + #given_back
  call('ZREM', keys.free, unpack(given_back))
  call('HDEL', keys.last, unpack(given_back)) -- who had them does not matter any more
  table.sort(given_back, function(a, b) return tonumber(a) < tonumber(b) end)
  local first
  for i, port in ipairs(given_back) do
    first = first or tonumber(port)
    if tonumber(given_back[i + 1]) ~= port + 1 then
      note_longer_run(keys, picking, add_run(keys, first, tonumber(port)))
      first = nil
    end
  end
  return #given_back == 100
end

-- Picks `count` consecutive ports, the first a multiple of `align`, and returns the first; or nil, and whether another
-- script may find some.
local function pick_block(keys, free_before, picking, count, align)
  local first, gave_up = cut_shortest(keys, picking, count, align)
  if not first and not gave_up and not picking.coalesced then
    picking.coalesced, picking.left = true, coalesce(keys, free_before, picking)
    first, gave_up = cut_shortest(keys, picking, count, align)
  end
  if not first and align > 1 and not gave_up and not picking.left then
    first, gave_up = cut_aligned(keys, picking, count, align)
  end
  if not first then return nil, gave_up or picking.left end
  picking.pieces[#picking.pieces + 1] = {first, first + count - 1}
  return string.format('%d', first)
end

-- Picks `count` ports, any of them, and returns them. The list is shorter if fewer are free.
local function pick_any(keys, free_before, picking, count)
  local all = call('ZRANGEBYSCORE', keys.free, '-inf', free_before, 'WITHSCORES', 'LIMIT', '0', count)
  local found, scores = {}, {}
  for i = 1, #all, 2 do
    found[#found + 1], scores[#scores + 1] = all[i], all[i + 1]
  end
  pick_given_back(keys, picking, found, scores)
  while #found < count do
    local run = call('ZRANGE', keys.fresh, '0', '0', 'WITHSCORES')
    if #run == 0 then break end
    local first, last = tonumber(run[2]), tonumber(run[1])
    local stop = math.min(last, first + count - #found - 1)
    if stop < last then call('ZADD', keys.fresh, stop + 1, run[1]) else drop_run(keys, run[1]) end
    picking.pieces[#picking.pieces + 1] = {first, stop}
    for port = first, stop do found[#found + 1] = string.format('%d', port) end
  end
  return found
end

-- Picks the ports of all requests: exact ones, blocks from the longest to the shortest, preferred ones, then any. A
-- block may be preferred, too. A single port that must be a multiple is a block. Sets request.port to the first ones.
-- Returns 'picked', 'none' if too few are free, or 'again' if another script may find a block.
local function pick(keys, service, picking, requests)
  local exact, blocks, any, free_before = {}, {}, {}, service.free_before
  for _, request in ipairs(requests) do
    if request.exact then
      exact[#exact + 1] = request
    elseif request.count > 1 or request.align > 1 then
      blocks[#blocks + 1] = request
    end
  end
  pick_exact(keys, picking, exact)
  table.sort(blocks, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    if a.align ~= b.align then return a.align > b.align end
    return a.index < b.index
  end)
  for _, request in ipairs(blocks) do
    if not pick_preferred(keys, service, picking, request) then
      local first, more = pick_block(keys, free_before, picking, request.count, request.align)
      if not first then return more and 'again' or 'none' end
      request.port = first
    end
  end
  for _, request in ipairs(requests) do
    if not request.port and not pick_preferred(keys, service, picking, request) then any[#any + 1] = request end
  end
  if #any == 0 then return 'picked' end
  local found = pick_any(keys, free_before, picking, #any)
  for i, request in ipairs(any) do request.port = found[i] end
  return #found == #any and 'picked' or 'none'
end
