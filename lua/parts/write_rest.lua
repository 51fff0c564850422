-- Runs the writes of a script of several calls that follow its first one, and returns the answers. `calls` has the
-- numbers of those that change something. Where a write fails, by a key of a wrong type or a fault of the script, what
-- became of these is unknown, and their answers say so; those of the others stand. An error outside of it says that
-- nothing was changed.
local function write_rest(answers, calls, write)
  local done, failure = pcall(write)
  if not done then
    local text = 'HALF_WRITTEN ' .. (type(failure) == 'table' and failure.err or tostring(failure))
    for _, i in ipairs(calls) do answers[i] = text end
  end
  return answers
end
