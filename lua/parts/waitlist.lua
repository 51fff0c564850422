-- Those who wait in line for a port of the service. `line` has their tickets by place: 'SERVER-NUMBER/PORTS/ROWS' says which call
-- of which server it is, how many ports it waits for, and how many of them must be in a row: '4.2.1' for a block of 4, one of 2,
-- and single ones. `beats` has when each server of
-- the pool loses its places unless it is heard of before, and `lines` when it is worth a look at the line of a service.

local kept_until = string.format('%d', now + 1500)
local looked_at = 32 -- so many of the line are looked at; nobody passes more than that

-- Takes tickets out of the line.
local function leave(tickets)
  if #tickets == 0 then return end
  call('ZREM', line, unpack(tickets))
  if call('EXISTS', line) == 0 then
    call('HDEL', service_key, 'waiting', 'no_rows')
    call('ZREM', lines, service)
    waiting = nil
  end
end

-- What a ticket waits for: how many ports, the longest row of them, and all rows.
local function demand(ticket)
  local wanted, rows = string.match(ticket, '/(%d+)/([%d.]+)$')
  return tonumber(wanted), tonumber(string.match(rows, '^%d+')), rows
end

-- The tickets in front of the line. Those of servers that were not heard of in time leave it, and those behind them are to hear
-- of it then.
local somebody_left = false
local function front()
  local lives = {}
  for _ = 1, 8 do
    local tickets, kept, lost = call('ZRANGE', line, '0', string.format('%d', looked_at - 1)), {}, {}
    for _, ticket in ipairs(tickets) do
      local server = string.match(ticket, '^[^-]+')
      if lives[server] == nil then
        local heard_of = call('ZSCORE', beats, server)
        lives[server] = heard_of and tonumber(heard_of) > tonumber(now) or false
        -- Redis' clock has stepped back: for that the places are kept no longer than if it had just been heard of.
        if heard_of and tonumber(heard_of) > tonumber(kept_until) then call('ZADD', beats, kept_until, server) end
      end
      if lives[server] then kept[#kept + 1] = ticket else lost[#lost + 1] = ticket end
    end
    if #lost == 0 then return kept end
    leave(lost)
    somebody_left = true
  end
  return {}
end

-- How many ports are free, and how many the service has.
local function spare()
  local range = call('HMGET', service_key, 'start', 'end')
  local for_ever = call('HLEN', ports) - call('ZCARD', leases)
  local held = call('ZCOUNT', free, '(' .. free_before, '+inf') + call('ZCOUNT', resting, '(' .. now, '+inf')
  local size = range[2] - range[1] + 1
  return size - for_ever - held, size
end

-- In how many ms the next port comes free by itself; nil where none does.
local function next_free()
  local held = call('ZRANGEBYSCORE', free, '(' .. free_before, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  local first = call('ZRANGEBYSCORE', resting, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  held, first = held and held - free_before, first and first - now
  if held and first then return math.min(held, first) end
  return held or first
end

-- `no_rows` of the service says 'UNTIL ROW TICKET': there are no such rows as the tickets up to that one wait for, the shortest of
-- which is ROW, until a time, or until ports come free otherwise that are as long a row. To take ports makes no rows, so nobody
-- need look again. Nil where nothing is known.
local function no_rows_up_to()
  local known = call('HGET', service_key, 'no_rows')
  if not known then return nil end
  local until_then, row, ticket = string.match(known, '^(%d+) (%d+) (.*)$')
  if tonumber(until_then) > tonumber(now) then return ticket, tonumber(row) end
end

-- How many of those in front are known to wait for rows that there are not, and the shortest of these rows.
local function known_of(stand)
  local known, shortest = no_rows_up_to()
  for i, ticket in ipairs(stand) do
    if ticket == known then return i, shortest end
  end
  return 0
end

local function set_no_rows(ticket, row)
  local wait = next_free()
  local until_then = wait and string.format('%d', now + wait) or '9000000000000'
  call('HSET', service_key, 'no_rows', string.format('%s %d %s', until_then, row, ticket))
end

-- Those in front for whom there may be ports now, so many at most, in their order. Who waits for more than there ever are is told,
-- too. Also how many ports the service has.
local function called(most)
  local left, size = spare()
  local stand, tickets = front(), {}
  local from = known_of(stand)
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

-- Says when it is worth a look at the line, should nobody hear of it otherwise. `if_sooner` is 'LT' where it is worth one before
-- as well.
local function look_after(wait, if_sooner)
  local at = wait and string.format('%d', now + wait) or '+inf'
  if if_sooner then call('ZADD', lines, if_sooner, at, service) else call('ZADD', lines, at, service) end
end

-- Sends a message to the servers: in how many ms a port comes free by itself, how many ports the service has, and the tickets
-- whose turn it is. One that is lost is made up for when a server looks into `lines`.
local function publish(wait, size, tickets)
  local prefix, pool = string.match(service_key, '^(.*):{(.*)}:')
  local about = string.format('%s %s %d %d ', pool, service, wait or -1, size)
  redis.pcall('PUBLISH', prefix .. ':turns', about .. table.concat(tickets, ' '))
end

-- Tells whose turn it is, after somebody has left the line.
local function notify(most)
  local tickets, size = called(most)
  if not waiting then return end -- all places were lost
  local wait = next_free()
  look_after(#tickets > 0 and 0 or wait)
  publish(wait, size, tickets)
end

-- Tells whose turn it is when ports come free sooner than was known, or did: then a row of so many is free where they are.
local function notify_of_ports(row)
  local known, shortest = no_rows_up_to()
  if known and row and row >= shortest then
    call('HDEL', service_key, 'no_rows')
  elseif known then
    set_no_rows(known, shortest)
  end
  notify(16)
end

-- Tells those in line that the service is gone.
local function tell_gone()
  call('ZREM', lines, service)
  publish(nil, 0, {})
end

-- Puts a ticket at the end of the line, unless it is in there. The answer of a call that waits: 0, or, where a port comes
-- free by itself, in how many ms, negative.
local function join(ticket)
  if not call('ZSCORE', line, ticket) then
    local last = call('ZRANGE', line, '-1', '-1', 'WITHSCORES')[2]
    call('ZADD', line, (last or 0) + 1, ticket)
    call('HSET', service_key, 'waiting', '1')
    call('ZADD', beats, kept_until, string.match(ticket, '^[^-]+'))
  end
  local wait = next_free()
  look_after(wait, 'LT')
  return wait and -wait or 0
end
