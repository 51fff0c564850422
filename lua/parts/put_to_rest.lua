-- Makes the ports that cool down rest until their time, whatever becomes of the cool-down: 150 at most. Whether those were all.
local function put_to_rest(cooldown)
  local cooling = call('ZRANGEBYSCORE', free, '(' .. string.format('%d', now - cooldown), now, 'WITHSCORES', 'LIMIT', '0', '150')
  if #cooling == 0 then return true end
  local all, at_rest = {}, {}
  for i = 1, #cooling, 2 do
    all[#all + 1] = cooling[i]
    at_rest[i], at_rest[i + 1] = cooling[i], string.format('%d', cooling[i + 1] + cooldown)
  end
  clear_all(all, math.huge)
  call('ZREM', free, unpack(all))
  let_rest(at_rest)
  return #all < 150
end
