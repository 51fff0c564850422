local call = redis.call

-- The ports that several calls mean, each by a port or a name: `n` of ARGV, from `first` on, `step` apart. What is
-- all digits is a port. Returns the ports, and by each the number of its call: of two calls of one port the first.
local function find_ports(keys, n, first, step)
  local of, asked, asker = {}, {}, {}
  for i = 1, n do
    local holder = ARGV[first + step * (i - 1)]
    if string.find(holder, '^%d+$') then
      of[i] = holder
    else
      asked[#asked + 1], asker[#asker + 1] = holder, i
    end
  end
  if #asked > 0 then
    for k, port in ipairs(call('HMGET', keys.names, unpack(asked))) do of[asker[k]] = port end
  end
  local ports, call_of = {}, {}
  for i = 1, n do
    local port = of[i]
    if port and not call_of[port] then ports[#ports + 1], call_of[port] = port, i end
  end
  return ports, call_of
end
