-- include ports/pick: pick_block, put_back
-- include waitlist: count_free, count_known, demand, front, parse_rows, set_no_rows

-- Which calls may have ports while others wait before them.

-- Whether these rows of ports exist now: true or false; nil if only another script can tell.
local function has_rows(keys, free_before, picking, rows)
  local found = true
  for _, row in ipairs(parse_rows(rows)) do
    if row.count + row.align == 2 then break end
    local first, more = pick_block(keys, free_before, picking, row.count, row.align)
    if not first then
      found = false
      if more then found = nil end
      break
    end
  end
  put_back(keys, picking)
  return found
end

-- The shortest row of more than one port, or that must begin at a multiple.
local function shortest_of(rows)
  local shortest = math.huge
  for _, row in ipairs(parse_rows(rows)) do
    if row.count + row.align > 2 then shortest = math.min(shortest, row.count) end
  end
  return shortest
end

-- Whether the rows that some of these tickets wait for exist: true or false; nil if another script has to tell, since
-- this one has searched enough. Also returns for how many ports it searched. in_front are the first tickets of the
-- waitlist.
local function any_has_rows(keys, service, picking, tickets, in_front)
  local known, shortest = count_known(keys, service, in_front)
  local work, missing = 0, math.huge
  for i, ticket in ipairs(tickets) do
    local count, row, rows, is_aligned = demand(ticket)
    if i > known and (row < missing or is_aligned) then
      if work > 0 and work + count > 256 then return nil end
      local found = has_rows(keys, service.free_before, picking, rows)
      if found ~= false then return found, work end
      work = work + count
      shortest = math.min(shortest or math.huge, shortest_of(rows))
      set_no_rows(keys, service, ticket, shortest)
    end
    missing = math.min(missing, row)
  end
  return false, work
end

-- Whether a call may have `count` ports now, the longest row of which is `row`, for so many requests: no ticket is
-- before it; or all tickets before it wait for longer rows, which do not exist, and enough ports are free for them
-- and for the call. Nil if another script has to tell.
local function may_overtake(keys, service, picking, ticket, count, row, requests)
  local before, tickets, in_front, is_seen = 0, {}, front(keys, service), false
  for _, other in ipairs(in_front) do
    is_seen = other == ticket
    if is_seen then break end
    local others_count, others_row = demand(other)
    if others_row <= row then return false end -- it can use what this call can use
    before = before + others_count
    tickets[#tickets + 1] = other
  end
  if before == 0 then return true end
  if not is_seen and #in_front == 32 then return false end -- more tickets may be before it
  if count_free(keys, service) - before < count then return false end
  local found, work = any_has_rows(keys, service, picking, tickets, in_front)
  -- After a long search, the next script grants the ports: what was found is recorded.
  if found == nil or not found and work + requests > 150 then return nil end
  return not found
end
