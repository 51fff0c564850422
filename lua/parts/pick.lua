-- Picks ports for wants, and takes them out of everybody's reach at once. Where one want cannot have its ports, those of the
-- others are put back: all of them, or none.

local picked = {} -- {port, its score in free, or nil where it was fresh}

local function put_back()
  for _, each in ipairs(picked) do
    if each[2] then call('ZADD', free, each[2], each[1]) else add_run(tonumber(each[1]), tonumber(each[1])) end
  end
end

-- Picks one port: whether it could, and if not, in how many ms it is free, where that is known.
local function pick_port(port)
  local score = call('ZSCORE', free, port)
  if score and tonumber(score) > tonumber(rested) then return false, score - rested end
  if score then
    call('ZREM', free, port)
  else
    local first, last = run_of(port)
    if not first then return false end
    cut_run(first, last, port)
  end
  picked[#picked + 1] = {port, score}
  return true
end

-- Makes ports that were given back fresh, so that runs show: those that have been free the longest, 250 at most.
local function gather()
  local given_back = call('ZRANGEBYSCORE', free, '-inf', rested, 'LIMIT', '0', '250')
  if #given_back == 0 then return 0 end
  for i, record in ipairs(call('HMGET', offers, unpack(given_back))) do
    if record then clear(given_back[i]) end
  end
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
  return #given_back
end

-- Picks so many ports in a row: the first of them; nil, and whether another search may find some.
local function pick_block(count)
  local first, gave_up = take_run(count)
  if not first and not gave_up then
    local gathered = gather()
    first, gave_up = take_run(count)
    gave_up = gave_up or gathered == 250
  end
  if not first then return nil, gave_up end
  for i = 0, count - 1 do picked[#picked + 1] = {string.format('%d', first + i)} end
  return first
end

-- Picks any one port; nil where there is none.
local function pick_any()
  -- include any
  if port then pick_port(port) end
  return port
end

-- Picks just the ports that a want names; an error where it cannot have them.
local function pick_certain(want)
  for i = tonumber(want.certain), want.certain + want.count - 1 do
    local port = string.format('%d', i)
    local free_now, wait = pick_port(port)
    if not free_now then
      local until_when = wait and string.format(', and comes free in %d ms', wait) or ''
      return fault(string.format('PORT_TAKEN %d', wait or -1), want, 'port', 'port ' .. port .. ' is taken' .. until_when)
    end
  end
  want.port = want.certain
end

-- Picks the ports of all wants: nil where it could, false where there are none left, 1 where it has gathered some and
-- should be called again, or an error.
local function pick(wants)
  for _, want in ipairs(wants) do
    local wrong = want.certain and pick_certain(want)
    if wrong then return wrong end
    if want.prefer and pick_port(want.prefer) then want.port = want.prefer end
  end
  for _, want in ipairs(wants) do
    if want.count > 1 and not want.port then
      local first, more = pick_block(want.count)
      if not first then return more and 1 or false end
      want.port = first
    end
  end
  for _, want in ipairs(wants) do
    want.port = want.port or pick_any()
    if not want.port then return false end
  end
end
