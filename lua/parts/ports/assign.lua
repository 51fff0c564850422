local call = redis.call
-- include ports/next_ports: next_ports
-- include record: has_labels, name_of

-- Picks a port for each of some calls for any port: wanted[i] is the name of call i, or false if it takes the long
-- path. Nothing is written. Calls that get none take the long path: their name has a port, an earlier call has the same
-- name, or the next port has a lease that ended, or an offer with labels, which are cleared there, or there are `most`
-- before it, nil for any number.
--
-- Returns the calls that get a port, the ports, and the names of offers that ended of which `offers` has a record at
-- one of them; then what next_ports returns behind the ports.
local function assign_ports(keys, now, wanted, most)
  local asked, new, of = {}, {}, {}
  for i, name in ipairs(wanted) do
    if name and not of[name] then
      of[name] = i
      new[#new + 1] = name
    end
  end
  if #new == 0 then return {} end
  for k, port in ipairs(call('HMGET', keys.names, unpack(new))) do
    if not port and (not most or #asked < most) then asked[#asked + 1] = of[new[k]] end
  end
  if #asked == 0 then return {} end
  local ports, used, runs = next_ports(keys.service, keys.free, keys.fresh, now, #asked)
  local picked, ended = {}, {}
  if #ports > 0 then
    for k, record in ipairs(call('HMGET', keys.offers, unpack(ports))) do
      if record == 'leased' or record and has_labels(record) then break end
      picked[k] = asked[k]
      if record then ended[#ended + 1] = name_of(record) end
    end
  end
  return picked, ports, ended, used, runs
end
