-- Runs the writes of a script that follow its first one. Where one of them fails, by a key of a wrong type or a fault
-- of the script, it returns an error by which the server knows that what became of the calls is unknown; else nil. An
-- error outside of it says that nothing was changed.
local function write_rest(write)
  local done, failure = pcall(write)
  if done then return nil end
  return redis.error_reply('HALF_WRITTEN ' .. (type(failure) == 'table' and failure.err or tostring(failure)))
end
