local call = redis.call

-- A full Redis refuses a command that may take memory, unless the script has written before. A script must not be
-- refused half-way: either its first write is one that may be refused, or Redis refuses none.

-- Ends the script with an error if Redis is full. ZADD XX changes nothing here, but a full Redis refuses it.
local function stop_if_full(keys)
  call('ZADD', keys.free, 'XX', '0', '')
end

-- Lets the script write even if Redis is full. HDEL of a missing field changes nothing, and a full Redis does not
-- refuse it. `key` is a HASH.
local function write_though_full(key)
  call('HDEL', key, '')
end

-- Sets a STRING even if Redis is full: UNLINK is not refused. `lasting` is its TTL (ms); with `keep_ttl`, the TTL is
-- only changed if Redis is full.
local function set_though_full(key, value, lasting, keep_ttl)
  local answer
  if keep_ttl then
    answer = redis.pcall('SET', key, value, 'KEEPTTL')
  else
    answer = redis.pcall('SET', key, value, 'PX', lasting)
  end
  if answer.err then
    call('UNLINK', key)
    call('SET', key, value, 'PX', lasting)
  end
end
