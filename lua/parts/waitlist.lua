local call = redis.call
-- include runs: row_around
-- include service: read_service

-- The calls that wait for a port of a service. `waitlist` has their tickets by position: 'SERVER-NUMBER/PORTS/ROWS' says which
-- call of which server it is, how many ports it waits for, and how many of them must be in a row: '4.2.1' for a block of 4, one
-- of 2, and single ones. `heartbeats` has when each server of the pool loses its positions unless it is heard of before, and
-- `waitlists` when it is worth a look at the waitlist of a service.

-- Until when a server keeps its positions that is heard of now.
local function kept_until(now)
  return string.format('%d', now + 1500)
end

-- Takes tickets out of the waitlist.
local function leave(keys, service, tickets)
  if #tickets == 0 then return end
  call('ZREM', keys.waitlist, unpack(tickets))
  if call('EXISTS', keys.waitlist) == 0 then
    call('HDEL', keys.service, 'waiting', 'no_rows')
    call('ZREM', keys.waitlists, service.name)
    service.waiting = nil
  end
end

-- What a ticket waits for: how many ports, the longest row of them, and all rows.
local function demand(ticket)
  local wanted, rows = string.match(ticket, '/(%d+)/([%d.]+)$')
  return tonumber(wanted), tonumber(string.match(rows, '^%d+')), rows
end

-- The tickets in front, 32 at most; nobody passes more than that. Those of servers that were not heard of in time leave the
-- waitlist, and those behind them are to hear of it then: service.somebody_left.
local function front(keys, service)
  local now, latest, is_there = tonumber(service.now), kept_until(service.now), {}
  for _ = 1, 8 do
    local tickets, kept, lost = call('ZRANGE', keys.waitlist, '0', '31'), {}, {}
    for _, ticket in ipairs(tickets) do
      local server = string.match(ticket, '^[^-]+')
      if is_there[server] == nil then
        local heard_of = call('ZSCORE', keys.heartbeats, server)
        is_there[server] = heard_of and tonumber(heard_of) > now or false
        -- Redis' clock has stepped back: for that the positions are kept no longer than if it had just been heard of.
        if heard_of and tonumber(heard_of) > tonumber(latest) then call('ZADD', keys.heartbeats, latest, server) end
      end
      if is_there[server] then kept[#kept + 1] = ticket else lost[#lost + 1] = ticket end
    end
    if #lost == 0 then return kept end
    leave(keys, service, lost)
    service.somebody_left = true
  end
  return {}
end

-- How many ports are free, and how many the service has.
local function spare(keys, service)
  local range = call('HMGET', keys.service, 'start', 'end')
  local lasting = call('HLEN', keys.ports) - call('ZCARD', keys.leases)
  local held = call('ZCOUNT', keys.free, '(' .. service.free_before, '+inf') +
    call('ZCOUNT', keys.resting, '(' .. service.now, '+inf')
  local size = range[2] - range[1] + 1
  return size - lasting - held, size
end

-- In how many ms the next port comes free by itself; nil if none does.
local function next_free(keys, service)
  local now, free_before = service.now, service.free_before
  local held = call('ZRANGEBYSCORE', keys.free, '(' .. free_before, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  local first = call('ZRANGEBYSCORE', keys.resting, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  held, first = held and held - free_before, first and first - now
  if held and first then return math.min(held, first) end
  return held or first
end

-- `no_rows` of the service says 'UNTIL ROW TICKET': there are no such rows as the tickets up to that one wait for, the shortest
-- of which is ROW, until a time, or until ports come free otherwise that are as long a row. To take ports makes no rows, so
-- nobody need look again. Nil if nothing is known.
local function no_rows_up_to(keys, now)
  local known = call('HGET', keys.service, 'no_rows')
  if not known then return nil end
  local until_then, row, ticket = string.match(known, '^(%d+) (%d+) (.*)$')
  if tonumber(until_then) > tonumber(now) then return ticket, tonumber(row) end
end

-- How many of those in front are known to wait for rows that there are not, and the shortest of these rows.
local function known_of(keys, service, stand)
  local known, shortest = no_rows_up_to(keys, service.now)
  for i, ticket in ipairs(stand) do
    if ticket == known then return i, shortest end
  end
  return 0
end

local function set_no_rows(keys, service, ticket, row)
  local wait = next_free(keys, service)
  local until_then = wait and string.format('%d', service.now + wait) or '9000000000000'
  call('HSET', keys.service, 'no_rows', string.format('%s %d %s', until_then, row, ticket))
end

-- Those in front for whom there may be ports now, so many at most, in their order. A call that waits for more than there ever
-- are is told, too. Also how many ports the service has.
local function whose_turn(keys, service, most)
  local left, size = spare(keys, service)
  local stand, tickets = front(keys, service), {}
  local from = known_of(keys, service, stand)
  local missing = math.huge -- the shortest row that there is not; those that need as long a one wait behind
  for i, ticket in ipairs(stand) do
    local wanted, row = demand(ticket)
    if i <= from and row > 1 then missing = math.min(missing, row) end
    if #tickets == most or wanted > left and wanted <= size then break end
    if wanted > size or row < missing then tickets[#tickets + 1] = ticket end
    if wanted <= size then left = left - wanted end
  end
  return tickets, size
end

-- Says when it is worth a look at the waitlist, should nobody hear of it otherwise. `if_sooner` is 'LT' if it is worth one
-- before as well.
local function look_after(keys, service, wait, if_sooner)
  local at = wait and string.format('%d', service.now + wait) or '+inf'
  if if_sooner then
    call('ZADD', keys.waitlists, if_sooner, at, service.name)
  else
    call('ZADD', keys.waitlists, at, service.name)
  end
end

-- Sends a message to the servers: in how many ms a port comes free by itself, how many ports the service has, and the tickets
-- whose turn it is. One that is lost is made up for when a server looks into `waitlists`.
local function publish(keys, service, wait, size, tickets)
  local prefix, pool = string.match(keys.service, '^(.*):{(.*)}:')
  local about = string.format('%s %s %d %d ', pool, service.name, wait or -1, size)
  redis.pcall('PUBLISH', prefix .. ':turns', about .. table.concat(tickets, ' '))
end

-- Tells whose turn it is, after somebody has left the waitlist.
local function notify(keys, service, most)
  local tickets, size = whose_turn(keys, service, most)
  if not service.waiting then return end -- all positions were lost
  local wait = next_free(keys, service)
  look_after(keys, service, #tickets > 0 and 0 or wait)
  publish(keys, service, wait, size, tickets)
end

-- Tells whose turn it is when ports come free sooner than was known, or did: then a row of so many is free where they are.
local function notify_of_ports(keys, service, row)
  local known, shortest = no_rows_up_to(keys, service.now)
  if known and row and row >= shortest then
    call('HDEL', keys.service, 'no_rows')
  elseif known then
    set_no_rows(keys, service, known, shortest)
  end
  notify(keys, service, 16)
end

-- Tells those who wait that a port came free, or when one will.
local function notify_of_change(keys, now, name)
  if call('EXISTS', keys.waitlist) == 1 then notify_of_ports(keys, read_service(keys, now, name)) end
end

-- Tells those who wait that `count` ports from `port` on were given back.
local function notify_of_return(keys, now, name, port, count)
  local service = read_service(keys, now, name)
  local _, shortest = no_rows_up_to(keys, now)
  local score = shortest and call('ZSCORE', keys.free, port) -- none if they are kept out, a later one if they cool down
  local is_free = score and tonumber(score) <= tonumber(service.free_before)
  local first = tonumber(port)
  notify_of_ports(keys, service, is_free and row_around(keys, service.free_before, first, first + count - 1, shortest))
end

-- Tells those who wait that the service is gone.
local function tell_gone(keys, service)
  call('ZREM', keys.waitlists, service.name)
  publish(keys, service, nil, 0, {})
end

-- Puts a ticket at the end of the waitlist, unless it is in there: 0, or, if a port comes free by itself, in how many ms.
local function join(keys, service, ticket)
  if not call('ZSCORE', keys.waitlist, ticket) then
    local last = call('ZRANGE', keys.waitlist, '-1', '-1', 'WITHSCORES')[2]
    call('ZADD', keys.waitlist, (last or 0) + 1, ticket)
    call('HSET', keys.service, 'waiting', '1')
    call('ZADD', keys.heartbeats, kept_until(service.now), string.match(ticket, '^[^-]+'))
  end
  local wait = next_free(keys, service)
  look_after(keys, service, wait, 'LT')
  return wait or 0
end

return kept_until, leave, demand, front, spare, next_free, no_rows_up_to, known_of, set_no_rows, whose_turn, look_after,
  publish, notify, notify_of_ports, notify_of_change, notify_of_return, tell_gone, join
