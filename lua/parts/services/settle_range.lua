local call = redis.call
-- include clear_ended: clear_ended
-- include drains: parse_drains, set_drains
-- include resting: let_rest
-- include runs: add_run, cut_run, run_of, set_run
-- include service: is_changing
-- include services/drain: forget_ports
-- include services/held_ports: holds_of

-- service.changing says what is left to do of a change of the range: 'drop 5000 5999' for ports that have left it,
-- 'add 7000 7999' for ports that have joined it, or several of these. While define.lua looks for ports that are held
-- outside of new ranges, it is 'narrow FIRST LAST AT UNTIL': see there.
--
-- Of ports that drain it is 'drop* 5000 5999': those that are held stay, and are counted. If some of them join the
-- ranges again, it is 'add* 7000 7999': those that are in a key stay as they are. Servers that do not know these words
-- fail there, before they change anything.

-- Removes some ports from the keys but those that are held, which it counts.
local function drop_unheld(keys, service, all)
  local holds, scores = holds_of(keys, service.now, all)
  local ended, unheld, kept = {}, {}, 0
  for i, port in ipairs(all) do
    if holds[i] then
      kept = kept + 1
    else
      unheld[#unheld + 1] = port
      if scores[i] then ended[#ended + 1], ended[#ended + 2] = port, scores[i] end
    end
  end
  if #unheld > 0 then call('ZREM', keys.resting, unpack(unheld)) end
  forget_ports(keys, service, ended)
  local count, swept, ranges = parse_drains(service.drains)
  if kept > 0 then set_drains(keys, service, count + kept, swept, ranges) end
end

-- Drops ports that have left the range, none of which is held unless they drain. Returns the last port that it dropped,
-- and how much work it was.
local function drop_ports(keys, service, first, last, most, they_drain)
  local run_first, run_last = run_of(keys, first)
  if run_first then
    local stop = math.min(run_last, last)
    cut_run(keys, run_first, run_last, first, stop)
    return stop, 10
  end
  local stop, all = math.min(last, first + most - 1), {}
  for port = first, stop do all[#all + 1] = string.format('%d', port) end
  local runs = call('ZRANGEBYSCORE', keys.fresh, first, stop)
  if #runs > 0 then
    local ends = tonumber(runs[#runs])
    call('ZREM', keys.fresh, unpack(runs))
    call('ZREM', keys.run_lengths, unpack(runs))
    if ends > stop then set_run(keys, stop + 1, ends) end
  end
  call('HDEL', keys.last, unpack(all))
  if they_drain then
    drop_unheld(keys, service, all)
    return stop, #all
  end
  call('ZREM', keys.free, unpack(all))
  call('ZREM', keys.resting, unpack(all))
  clear_ended(keys, all, math.huge)
  return stop, #all
end

-- Which of some ports are held, or free already.
local function ports_there(keys, all)
  local scores, allocations, there = call('ZMSCORE', keys.free, unpack(all)), call('HMGET', keys.ports, unpack(all)), {}
  for i = 1, #all do there[i] = scores[i] or allocations[i] end
  return there
end

-- Adds ports to the service; those that rest go on resting, and if they drained, those that are there stay as they are.
-- Returns the same as drop_ports.
local function add_ports(keys, now, first, last, most, they_drained)
  call('HDEL', keys.service, 'unaligned') -- searches of ports/align.lua begin again
  if not they_drained and call('EXISTS', keys.rest) == 0 then
    add_run(keys, first, last)
    return last, 10
  end
  local stop, all, until_of, over, from = math.min(last, first + most - 1), {}, {}, {}, first
  for port = first, stop do all[#all + 1] = string.format('%d', port) end
  local there = they_drained and ports_there(keys, all) or {}
  for i, time in ipairs(call('HMGET', keys.rest, unpack(all))) do
    local rests = time and tonumber(time) > tonumber(now)
    if rests or there[i] then
      if rests and not there[i] then until_of[#until_of + 1], until_of[#until_of + 2] = all[i], time end
      local port = first + i - 1
      if port > from then add_run(keys, from, port - 1) end
      from = port + 1
    elseif time then
      over[#over + 1] = all[i]
    end
  end
  if from <= stop then add_run(keys, from, stop) end
  if #over > 0 then call('HDEL', keys.rest, unpack(over)) end
  let_rest(keys, until_of)
  return stop, #all
end

-- Goes on with a change of the range until it has done so much work: a port is 1. Returns whether the change is done.
local function settle_range(keys, service, most)
  local steps = 0
  while is_changing(service) do
    if steps >= most then return false end
    local op, from, to, others = string.match(service.changing, '^(%l+%*?) (%d+) (%d+) ?(.*)$')
    local first, last = tonumber(from), tonumber(to)
    local stop, work
    if string.sub(op, 1, 4) == 'drop' then
      stop, work = drop_ports(keys, service, first, last, most, op == 'drop*')
    else
      stop, work = add_ports(keys, service.now, first, last, most, op == 'add*')
    end
    steps = steps + work
    local changing
    if stop < last then
      changing = string.format('%s %d %d', op, stop + 1, last) .. (others ~= '' and ' ' .. others or '')
    else
      changing = others ~= '' and others
    end
    if changing then call('HSET', keys.service, 'changing', changing) else call('HDEL', keys.service, 'changing') end
    service.changing = changing
  end
  return true
end
