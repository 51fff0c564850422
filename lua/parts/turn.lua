-- The line of those who wait for a port of the service: `line` has their tickets ("id/ports") by place, `beats` has when
-- each loses its place unless it is heard of before.

local kept_until = string.format('%d', now + 1500)

-- Whether it is a call's turn: nobody stands in line before it.
local function is_turn(ticket)
  local first = call('ZRANGE', line, '0', '0')[1]
  return not first or first == ticket
end

-- include leave

-- Ends the waiting of those who were not heard of in time.
local function drop_lost()
  leave(call('ZRANGEBYSCORE', beats, '-inf', now, 'LIMIT', '0', '1000'))
end

-- Puts a ticket at the end of the line, unless it is in there, and keeps its place for 1.5 s.
local function join(ticket)
  if not call('ZSCORE', line, ticket) then
    local last = call('ZRANGE', line, '-1', '-1', 'WITHSCORES')[2]
    call('ZADD', line, (last or 0) + 1, ticket)
    call('HSET', service_key, 'waiting', '1')
  end
  call('ZADD', beats, kept_until, ticket)
end
