local call = redis.call

-- The ports that an owner holds in a pool, those of its open offers included. `owned` has each, scored by the end of
-- its hold, or by 9007199254740991 if it has none: no time is later, and Redis writes it in digits. So what ran out
-- drops out by its score.

-- What a script answers instead of acting on a record: nil if it may act. `owned` is the key of `owner`, so a record of
-- another owner needs another key. With must_own '1' it may only act on records of `owner`, and of nobody.
local function check_owner(its_owner, owner, must_own, holder)
  if not its_owner or its_owner == owner then return nil end
  if must_own == '1' then return redis.error_reply('NOT_OWNER ' .. holder .. ' belongs to another owner') end
  return {'owner', its_owner}
end

-- How many ports the owner holds.
local function count_held(keys, now)
  return call('ZCOUNT', keys.owned, '(' .. now, '+inf')
end

-- The error of a call for `count` ports more than its owner may hold; nil if there is none. `most` is how many it may
-- hold, '0' for any number.
local function check_quota(keys, now, owner, most, count)
  if most == '0' then return nil end
  local held = count_held(keys, now)
  if held + count <= tonumber(most) then return nil end
  return string.format('QUOTA_EXCEEDED %s holds %d of the %s ports that it may hold in this pool, and asks for %d more',
    owner, held, most, count)
end

-- Lets the key end with the last hold in it, or, if that lasts, in 100 years: an owner that never comes back leaves
-- nothing.
local function expire_owned(keys, now)
  local last = call('ZRANGE', keys.owned, '-1', '-1', 'WITHSCORES')[2]
  if last then call('PEXPIRE', keys.owned, string.format('%d', math.min(last - now, 3153600000000))) end
end

-- Adds ports that are held until `ends`, nil: until they are released, as pairs of score and port.
local function add_holds(holds, first, count, ends)
  for i = 0, count - 1 do
    holds[#holds + 1] = ends or '9007199254740991'
    holds[#holds + 1] = string.format('%d', first + i)
  end
  return holds
end

-- Records that the owner holds ports: pairs of score and port, one or more. Some that ran out are removed.
local function own_ports(keys, now, holds)
  call('ZADD', keys.owned, unpack(holds))
  local ended = call('ZRANGEBYSCORE', keys.owned, '-inf', now, 'LIMIT', '0', '100')
  if #ended > 0 then call('ZREM', keys.owned, unpack(ended)) end
  expire_owned(keys, now)
end

-- Records that the owner does not hold a list of ports any more.
local function disown_each(keys, now, ports)
  call('ZREM', keys.owned, unpack(ports))
  expire_owned(keys, now)
end

-- Records that the owner does not hold ports in a row any more.
local function disown_ports(keys, now, first, count)
  local all = {}
  for i = 0, count - 1 do all[i + 1] = string.format('%d', first + i) end
  disown_each(keys, now, all)
end
