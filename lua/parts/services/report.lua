local call = redis.call

-- Returns the function by which a check reports a finding: its code, the entry that it is about, the detail, and the
-- function that repairs it, nil if nothing does. If findings are repaired, that one is called at once. Call this before
-- the first change: a full Redis does not refuse the one that this makes, which changes nothing, and so none after it.
local function begin_report(keys, findings, repairs)
  if repairs then call('HDEL', keys.offers, '') end
  return function(code, entry, detail, repair)
    local repaired = repairs and repair ~= nil
    if repaired then repair() end
    findings[#findings + 1] = {code, tostring(entry), detail, repaired and '1' or '0'}
  end
end
