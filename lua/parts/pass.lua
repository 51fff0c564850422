-- Who may have ports while others stand before it in line.

-- Whether there are such rows of ports now: true or false; nil where another call may tell.
local function has_rows(rows)
  local found = true
  for row in string.gmatch(rows, '%d+') do
    if row == '1' then break end
    local first, more = pick_block(tonumber(row))
    if not first then
      found = false
      if more then found = nil end
      break
    end
  end
  put_back()
  return found
end

-- Whether a call may have ports now that wants so many, and so many of them in a row: nobody stands before it, or those who do
-- wait for longer rows, of which there are none, and there are as many ports as they wait for beside those that it wants. Nil
-- where another call may tell.
local function may_take(ticket, wanted, row)
  local before, rows_before, stand, seen = 0, {}, front(), false
  for _, other in ipairs(stand) do
    seen = other == ticket
    if seen then break end
    local others, rows = demand(other)
    if tonumber(string.match(rows, '^%d+')) <= row then return false end -- what this call can use it can use as well
    before = before + others
    rows_before[#rows_before + 1] = rows
  end
  if before == 0 then return true end
  if not seen and #stand == looked_at or spare() - before < wanted then return false end
  local work = 0
  for _, rows in ipairs(rows_before) do
    work = work + #rows
    if work > 200 then return false end -- that is to be found out by those it is about
    local found = has_rows(rows)
    if found == nil then return nil end
    if found then return false end
  end
  return true
end
