-- How many ports in a row are free around some that are, not counted beyond `enough`.
local function row_around(first, last, enough)
  local length = last - first + 1
  for _, step in ipairs({-1, 1}) do
    local port = step < 0 and first - 1 or last + 1
    while length < enough do
      local score, run_first, run_last = call('ZSCORE', free, string.format('%d', port)), nil, nil
      if not score then run_first, run_last = run_of(port) end
      if run_first then
        length = length + run_last - run_first + 1
        port = step < 0 and run_first - 1 or run_last + 1
      elseif score and tonumber(score) <= tonumber(free_before) then
        length = length + 1
        port = port + step
      else
        break
      end
    end
  end
  return length
end
