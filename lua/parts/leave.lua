-- Takes tickets out of the line.
local function leave(tickets)
  if #tickets == 0 then return end
  call('ZREM', line, unpack(tickets))
  call('ZREM', beats, unpack(tickets))
  if call('EXISTS', line) == 0 then call('HDEL', service_key, 'waiting') end
end
