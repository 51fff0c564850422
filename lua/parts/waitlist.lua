local call = redis.call
-- include drains: count_draining, is_draining, parse_drains
-- include ranges: read_ranges, size_of
-- include runs: row_around
-- include service: read_service

-- The calls that wait for a port of a service. `waitlist` has their tickets by position. A ticket
-- 'SERVER-NUMBER/NAME/PORTS/ROWS' says which call of which server it is, the name in its first request, how many ports
-- it waits for, and how many of them must be consecutive: '4.2x4.1' for a block of 4, one of 2 that begins at a
-- multiple of 4, and single ports. Those of older servers have no name. A position is the time at which the ticket
-- joined, or more if others came at that time. `heartbeats` has the time at which each server of the pool loses its
-- positions unless it sends a heartbeat, and `waitlists` the time at which to look at the waitlist of a service next.

-- Until when a server keeps its positions that sends a heartbeat now.
local function kept_until(now)
  return string.format('%d', now + 1500)
end

-- Removes tickets from the waitlist.
local function leave(keys, service, tickets)
  if #tickets == 0 then return end
  call('ZREM', keys.waitlist, unpack(tickets))
  if call('EXISTS', keys.waitlist) == 0 then
    call('HDEL', keys.service, 'waiting', 'no_rows')
    call('ZREM', keys.waitlists, service.name)
    service.waiting = nil
  end
end

-- The rows that a ticket waits for: of each the number of ports, and of what the first must be a multiple.
local function parse_rows(text)
  local rows = {}
  for count, align in string.gmatch(text, '(%d+)x?(%d*)') do
    rows[#rows + 1] = {count = tonumber(count), align = tonumber(align) or 1}
  end
  return rows
end

-- What a ticket waits for: the number of ports, how long a row of consecutive ones must be to have its longest row for
-- sure, all rows, whether one of them must begin at a multiple, and the most ports of a row.
local function demand(ticket)
  local ports, rows = string.match(ticket, '/(%d+)/([%d.x]+)$')
  local longest, most = 1, 1
  for _, row in ipairs(parse_rows(rows)) do
    longest, most = math.max(longest, row.count + row.align - 1), math.max(most, row.count)
  end
  return tonumber(ports), longest, rows, string.find(rows, 'x', 1, true) ~= nil, most
end

-- The first tickets, 32 at most; no call passes more than that. Tickets of servers whose heartbeats are missing leave
-- the waitlist. Then service.has_lost is set: the calls after them must be notified.
local function front(keys, service)
  local now, latest, is_there = tonumber(service.now), kept_until(service.now), {}
  for _ = 1, 8 do
    local tickets, kept, lost = call('ZRANGE', keys.waitlist, '0', '31'), {}, {}
    for _, ticket in ipairs(tickets) do
      local server = string.match(ticket, '^[^-]+')
      if is_there[server] == nil then
        local lasts = call('ZSCORE', keys.heartbeats, server)
        is_there[server] = lasts and tonumber(lasts) > now or false
        -- If Redis's clock stepped back, positions last no longer than if the heartbeat had come now.
        if lasts and tonumber(lasts) > tonumber(latest) then call('ZADD', keys.heartbeats, latest, server) end
      end
      if is_there[server] then kept[#kept + 1] = ticket else lost[#lost + 1] = ticket end
    end
    if #lost == 0 then return kept end
    leave(keys, service, lost)
    service.has_lost = true
  end
  return {}
end

-- How many ports are free, how many the service has, and how many its longest range has.
local function count_free(keys, service)
  local lasting = call('HLEN', keys.ports) - call('ZCARD', keys.leases)
  local held = call('ZCOUNT', keys.free, '(' .. service.free_before, '+inf') +
    call('ZCOUNT', keys.resting, '(' .. service.now, '+inf')
  local size, longest = size_of(read_ranges(keys))
  if not service.drains then return size - lasting - held, size, longest end
  local draining, cooling = count_draining(keys, service.now, service.cooldown, service.drains)
  return size + draining - lasting - (held - cooling), size, longest
end

-- The score of the port that becomes free next of those in `free`, which does not drain. Of more than 64 that drain it
-- is that of the last of them.
local function next_score(keys, service)
  local most = service.drains and '64' or '1'
  local some = call('ZRANGEBYSCORE', keys.free, '(' .. service.free_before, '+inf', 'WITHSCORES', 'LIMIT', '0', most)
  if not service.drains then return some[2] end
  local _, _, draining = parse_drains(service.drains)
  for i = 1, #some, 2 do
    if i == 127 or not is_draining(draining, some[i]) then return some[i + 1] end
  end
end

-- In how many ms the next port becomes free by itself; nil if none does.
local function next_free(keys, service)
  local now, free_before = service.now, service.free_before
  local held = next_score(keys, service)
  local resting = call('ZRANGEBYSCORE', keys.resting, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
  held, resting = held and held - free_before, resting and resting - now
  if held and resting then return math.min(held, resting) end
  return held or resting
end

-- `no_rows` of the service is 'UNTIL ROW TICKET': the rows that the tickets up to this one wait for do not exist. ROW
-- is the shortest of them. That holds until the time UNTIL, or until ports become free otherwise that make a row as
-- long: taking ports makes no rows, so no script needs to search again. Returns the ticket and the row, or nil if
-- nothing is known.
local function no_rows_up_to(keys, now)
  local known = call('HGET', keys.service, 'no_rows')
  if not known then return nil end
  local until_then, row, ticket = string.match(known, '^(%d+) (%d+) (.*)$')
  if tonumber(until_then) > tonumber(now) then return ticket, tonumber(row) end
end

-- How many of the first tickets are known to wait for rows that do not exist, and the shortest of these rows.
local function count_known(keys, service, tickets)
  local known, shortest = no_rows_up_to(keys, service.now)
  for i, ticket in ipairs(tickets) do
    if ticket == known then return i, shortest end
  end
  return 0
end

-- Records that the rows that the tickets up to this one wait for do not exist.
local function set_no_rows(keys, service, ticket, row)
  local wait = next_free(keys, service)
  local until_then = wait and string.format('%d', service.now + wait) or '9000000000000'
  call('HSET', keys.service, 'no_rows', string.format('%s %d %s', until_then, row, ticket))
end

-- The tickets for which there may be ports now, `most` at most, in their order. A ticket that waits for more ports
-- than the service has, in all or in a row, is among them, so that its call ends. Also returns how many ports the
-- service has.
local function whose_turn(keys, service, most)
  local left, size, longest = count_free(keys, service)
  local in_front, tickets = front(keys, service), {}
  local known = count_known(keys, service, in_front)
  local missing = math.huge -- the shortest row that does not exist; tickets that need one as long wait
  for i, ticket in ipairs(in_front) do
    local count, row, _, is_aligned, most_in_row = demand(ticket)
    local never = count > size or most_in_row > longest
    if i <= known and row > 1 then missing = math.min(missing, row) end
    if #tickets == most or count > left and not never then break end
    if never or row < missing or is_aligned and i > known then tickets[#tickets + 1] = ticket end
    if not never then left = left - count end
  end
  return tickets, size
end

-- Records in how many ms to look at the waitlist if no message tells the servers to. With only_sooner, an earlier
-- time stays.
local function look_in(keys, service, wait, only_sooner)
  local at = wait and string.format('%d', service.now + wait) or '+inf'
  if only_sooner then
    call('ZADD', keys.waitlists, 'LT', at, service.name)
  else
    call('ZADD', keys.waitlists, at, service.name)
  end
end

-- Sends a message to the servers: in how many ms a port becomes free by itself, how many ports the service has, and
-- the tickets whose turn it is. If a message is lost, a server finds the service in `waitlists`.
local function publish(keys, service, wait, size, tickets)
  local prefix, pool = string.match(keys.service, '^(.*):{(.*)}:')
  local about = string.format('%s %s %d %d ', pool, service.name, wait or -1, size)
  redis.pcall('PUBLISH', prefix .. ':turns', about .. table.concat(tickets, ' '))
end

-- Tells the servers whose turn it is.
local function notify(keys, service, most)
  local tickets, size = whose_turn(keys, service, most)
  if not service.waiting then return end -- all positions were lost
  local wait = next_free(keys, service)
  look_in(keys, service, #tickets > 0 and 0 or wait)
  publish(keys, service, wait, size, tickets)
end

-- Tells the servers whose turn it is after ports became free, or will become free sooner than was known. `row` is the
-- length of the row that they are in, nil if they make none.
local function notify_of_ports(keys, service, row)
  local known, shortest = no_rows_up_to(keys, service.now)
  if known and row and row >= shortest then
    call('HDEL', keys.service, 'no_rows')
  elseif known then
    set_no_rows(keys, service, known, shortest)
  end
  notify(keys, service, 16)
end

-- Tells the servers whose turn it is after it changed when ports become free.
local function notify_of_change(keys, now, name)
  notify_of_ports(keys, read_service(keys, now, name))
end

-- Tells the servers whose turn it is after `count` ports from `port` on were given back.
local function notify_of_ports_back(keys, now, name, port, count)
  local service = read_service(keys, now, name)
  local _, shortest = no_rows_up_to(keys, now)
  local score = shortest and call('ZSCORE', keys.free, port) -- none if the ports rest, a later one if they cool down
  local is_free = score and tonumber(score) <= tonumber(service.free_before)
  local first = tonumber(port)
  notify_of_ports(keys, service, is_free and row_around(keys, service.free_before, first, first + count - 1, shortest))
end

-- Tells the servers that the service is gone.
local function notify_gone(keys, service)
  call('ZREM', keys.waitlists, service.name)
  publish(keys, service, nil, 0, {})
end

-- Adds a ticket at the end of the waitlist, unless it is in it. Returns in how many ms a port becomes free by itself,
-- 0 if none does.
local function join(keys, service, ticket)
  if not call('ZSCORE', keys.waitlist, ticket) then
    local last = call('ZRANGE', keys.waitlist, '-1', '-1', 'WITHSCORES')[2]
    local position = math.max((last or 0) + 1, tonumber(service.now))
    call('ZADD', keys.waitlist, string.format('%d', position), ticket)
    call('HSET', keys.service, 'waiting', '1')
    call('ZADD', keys.heartbeats, kept_until(service.now), string.match(ticket, '^[^-]+'))
  end
  local wait = next_free(keys, service)
  look_in(keys, service, wait, true)
  return wait or 0
end
