-- Takes ports for wants, and their names: want.port is the first of each. All, or none.
--
-- answer: nil                     they have them; what they are then written as is up to the act
--         0, 1, or an error       the script's answer: see the act

-- What keeps a name from having ports, in words; nil where nothing does, and the port that it had when a hold ran out.
local function taken(name)
  local port = call('HGET', names, name)
  if not port then return nil end
  local record = call('HGET', offers, port)
  local offered = record and record ~= 'leased'
  if not offered then record = call('HGET', ports, port) end
  if not lives(record) then return nil, port end
  return name .. (offered and ' is offered port ' or ' has port ') .. port
end

-- The answer where a call finds no ports: it has to wait, or it fails.
local function none_free(wants, total, turn)
  if stay == '1' then
    join(ticket)
    return 0
  end
  if not turn then
    for _, want in ipairs(wants) do
      if want.certain then
        return fault('PORT_TAKEN -1', want, 'port', 'port ' .. want.certain .. ' is for those who wait in line')
      end
    end
    return redis.error_reply('EXHAUSTED -1 others wait in line for a port of ' .. service)
  end
  local next_free = call('ZRANGEBYSCORE', free, '(' .. rested, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  local what = total == 1 and 'every port of ' .. service .. ' is taken' or service .. ' has no such ' .. total .. ' ports free'
  return redis.error_reply(string.format('EXHAUSTED %d %s', next_free and next_free - rested or -1, what))
end

-- The error of a want that names a port outside of the service's range; nil where none does.
local function outside(want)
  local port = want.certain or want.prefer
  if not port then return nil end
  local range = call('HMGET', service_key, 'start', 'end')
  if port - range[1] >= 0 and port + want.count - 1 - range[2] <= 0 then return nil end
  return fault('INVALID', want, want.certain and 'port' or 'prefer', 'must lie within the range ' .. range[1] .. '-' .. range[2] ..
    (want.count > 1 and ', with all that it counts' or ''))
end

local function take(wants)
  if not cooldown then return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service) end
  local total = 0
  for _, want in ipairs(wants) do
    local wrong = outside(want)
    if wrong then return wrong end
    local why, last = taken(want.name)
    if why then return fault('NAME_TAKEN', want, 'name', why) end
    want.last = last
    total = total + want.count
  end
  if waiting then drop_lost() end
  local turn = not waiting or is_turn(ticket)
  local failed = false
  if turn then failed = pick(wants) end
  if failed ~= nil then
    put_back()
    return failed or none_free(wants, total, turn)
  end
  for _, want in ipairs(wants) do
    if want.last then clear(want.last) end
    call('HSET', names, want.name, want.port)
  end
end
