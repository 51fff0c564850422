-- Clears what a hold that ran out has left at a port: the record, and the name that it was for. Of a block that was leased
-- it clears all: 100 ports at most.
--
-- answer: how many ports it has cleared
local function clear(port)
  local record = call('HGET', offers, port)
  if not record then return 0 end
  local all = {port}
  if record == 'leased' then
    record = call('HGET', ports, port)
    if string.find(record, '^%d') then
      port = record
      record = call('HGET', ports, port)
    end
    for i = 1, tonumber(string.match(record, '"count":(%d+)') or 1) do all[i] = string.format('%d', port + i - 1) end
    call('HDEL', ports, unpack(all))
    call('ZREM', leases, unpack(all))
  end
  call('HDEL', offers, unpack(all))
  call('HDEL', names, string.match(record, '"name":"([^"]+)"'))
  return #all
end
