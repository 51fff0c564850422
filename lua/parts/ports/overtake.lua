-- include ports/pick: pick_block, put_back
-- include waitlist: demand, front, known_of, set_no_rows, spare

-- Who may have ports while others wait before it.

-- Whether there are such rows of ports now: true or false; nil if another call may tell.
local function has_rows(keys, free_before, picking, rows)
  local found = true
  for row in string.gmatch(rows, '%d+') do
    if row == '1' then break end
    local first, more = pick_block(keys, free_before, picking, tonumber(row))
    if not first then
      found = false
      if more then found = nil end
      break
    end
  end
  put_back(keys, picking)
  return found
end

-- The shortest row of more than one port.
local function shortest_of(rows)
  local shortest = math.huge
  for row in string.gmatch(rows, '%d+') do
    if row ~= '1' then shortest = math.min(shortest, tonumber(row)) end
  end
  return shortest
end

-- Looks whether some tickets wait for rows that there are: true or false; nil if another call may tell, since that was much
-- work already.
local function any_has_rows(keys, service, picking, tickets, stand)
  local from, shortest = known_of(keys, service, stand)
  local work, missing = 0, math.huge
  for i, ticket in ipairs(tickets) do
    local wanted, row, rows = demand(ticket)
    if i > from and row < missing then
      if work > 0 and work + wanted > 256 then return nil end
      local found = has_rows(keys, service.free_before, picking, rows)
      if found ~= false then return found, work end
      work = work + wanted
      shortest = math.min(shortest or math.huge, shortest_of(rows))
      set_no_rows(keys, service, ticket, shortest)
    end
    missing = math.min(missing, row)
  end
  return false, work
end

-- Whether a call may have ports now that wants so many, and so many of them in a row, for so many requests: nobody stands before
-- it, or those who do wait for longer rows, of which there are none, and there are as many ports as they wait for beside those
-- that it wants. Nil if another call may tell.
local function may_pass(keys, service, picking, ticket, wanted, row, requests)
  local before, tickets, stand, seen = 0, {}, front(keys, service), false
  for _, other in ipairs(stand) do
    seen = other == ticket
    if seen then break end
    local others, their_row = demand(other)
    if their_row <= row then return false end -- what this call can use it can use as well
    before = before + others
    tickets[#tickets + 1] = other
  end
  if before == 0 then return true end
  if not seen and #stand == 32 or spare(keys, service) - before < wanted then return false end -- it may stand behind more
  local found, work = any_has_rows(keys, service, picking, tickets, stand)
  -- If it was much work, it is known then, and need not be looked for again.
  if found == nil or not found and work + requests > 150 then return nil end
  return not found
end

return shortest_of, may_pass
