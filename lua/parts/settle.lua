-- Puts a service in order, a step at a time: it gives back ports whose rest is over, and goes on with what a change of the
-- range has left to be done. `changing` has that: 'drop 5000 5999' for ports that fell out of the range, 'add 7000 7999' for
-- some that came in, several behind one another, or 'narrow FIRST LAST AT UNTIL' while define.lua looks whether somebody
-- has a port outside of FIRST-LAST; AT says how far it has come.

-- Drops ports that are out of the range, of which nobody has one: up to the port that it returns, and how much work it was.
local function drop_ports(first, last, most)
  local run_first, run_last = run_of(first)
  if run_first then
    local stop = math.min(run_last, last)
    cut_run(run_first, run_last, first, stop)
    return stop, 10
  end
  local stop, all = math.min(last, first + most - 1), {}
  for port = first, stop do all[#all + 1] = string.format('%d', port) end
  local runs = call('ZRANGEBYSCORE', fresh, first, stop)
  if #runs > 0 then
    local ends = tonumber(runs[#runs])
    call('ZREM', fresh, unpack(runs))
    call('ZREM', room, unpack(runs))
    if ends > stop then set_run(stop + 1, ends) end
  end
  call('ZREM', free, unpack(all))
  call('ZREM', resting, unpack(all))
  clear_all(all, math.huge)
  return stop, #all
end

-- Adds ports to the service, those that rest as such; answers as drop_ports.
local function add_ports(first, last, most)
  if call('EXISTS', rest) == 0 then
    add_run(first, last)
    return last, 10
  end
  local stop, all, at_rest, over, from = math.min(last, first + most - 1), {}, {}, {}, first
  for port = first, stop do all[#all + 1] = string.format('%d', port) end
  for i, time in ipairs(call('HMGET', rest, unpack(all))) do
    if time and tonumber(time) > tonumber(now) then
      at_rest[#at_rest + 1] = all[i]
      at_rest[#at_rest + 1] = time
      local port = first + i - 1
      if port > from then add_run(from, port - 1) end
      from = port + 1
    elseif time then
      over[#over + 1] = all[i]
    end
  end
  if from <= stop then add_run(from, stop) end
  if #over > 0 then call('HDEL', rest, unpack(over)) end
  let_rest(at_rest)
  return stop, #all
end

-- Goes on with a change of the range, by some 250 ports, or 50 after other work: whether it is done.
local function settle_range(most)
  local steps = 0
  while changing and string.sub(changing, 1, 6) ~= 'narrow' do
    if steps >= most then return false end
    local op, first, last, others = string.match(changing, '^(%l+) (%d+) (%d+) ?(.*)$')
    first, last = tonumber(first), tonumber(last)
    local stop, work
    if op == 'drop' then stop, work = drop_ports(first, last, most) else stop, work = add_ports(first, last, most) end
    steps = steps + work
    if stop < last then
      changing = string.format('%s %d %d', op, stop + 1, last) .. (others ~= '' and ' ' .. others or '')
    else
      changing = others ~= '' and others
    end
    if changing then call('HSET', service_key, 'changing', changing) else call('HDEL', service_key, 'changing') end
  end
  return true
end
