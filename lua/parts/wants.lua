-- Reads what a call wants: of each the name, the secret, and the options, in ARGV from the fifth on; the keys of the
-- secrets are those after the first `others`. What is not wanted is nil, or false. want.has is the port that the name has, or had.
local function read_wants(others)
  local wants, of_names = {}, {}
  for i = 1, #KEYS - others do
    local want = {offer = KEYS[others + i], name = ARGV[3 * i + 2], secret = ARGV[3 * i + 3], count = 1, place = i - 1}
    local options = ARGV[3 * i + 4]
    want.own = string.sub(options, 1, 1) == '1'
    local lease, port, prefer, count = string.match(options, '^%d (%d+) (%d+) (%d+) (%d+)$')
    if lease then
      want.lease = lease ~= '0' and lease
      want.certain = port ~= '0' and port
      want.prefer = prefer ~= '0' and prefer
      want.counted = count ~= '0'
      want.count = math.max(1, tonumber(count))
    end
    wants[i], of_names[i] = want, want.name
  end
  for i, port in ipairs(call('HMGET', names, unpack(of_names))) do wants[i].has = port end
  return wants
end

-- The error of one want. Which one, and what of it, stands in front of the detail. Those of several stand behind one another,
-- with | between.
local function fault_text(code, want, field, detail)
  return code .. ' [' .. want.place .. '].' .. field .. ' ' .. detail
end

local function fault(code, want, field, detail) return redis.error_reply(fault_text(code, want, field, detail)) end

-- The error of a want whose secret is another's, or of what is over, or has something else than is wanted; nil where there
-- is none.
local function refuse(want, state, holder, port, count)
  if state == 'elsewhere' or (state and holder ~= want.name) then
    return fault('INVALID', want, 'secret', 'belongs to another offer')
  elseif state == 'released' or state == 'over' then
    return fault('OFFER_ACCEPTED', want, 'secret', 'this offer was accepted, and its port was released')
  elseif state == 'rejected' then
    return fault('OFFER_REJECTED', want, 'secret', 'this offer was rejected already')
  elseif state and want.certain and want.certain ~= port then
    return fault('INVALID', want, 'port', 'is not the one that this secret has: ' .. port)
  elseif state and want.counted and want.count ~= count then
    return fault('INVALID', want, 'count', 'is not the one that this secret has: ' .. count)
  end
end
