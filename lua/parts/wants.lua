-- Reads what a call wants: of each the name, the secret, and the options, in ARGV from the fifth on; the keys of the
-- secrets are those after the first `others`. What is not wanted is nil, or false.
local function read_wants(others)
  local wants = {}
  for i = 1, #KEYS - others do
    local want = {offer = KEYS[others + i], name = ARGV[3 * i + 2], secret = ARGV[3 * i + 3], count = 1, place = i - 1}
    local options = ARGV[3 * i + 4]
    want.own = string.sub(options, 1, 1) == '1'
    local lease, port, prefer, count = string.match(options, '^%d (%d+) (%d+) (%d+) (%d+)$')
    if lease then
      want.lease = lease ~= '0' and lease
      want.certain = port ~= '0' and port
      want.prefer = prefer ~= '0' and prefer
      want.count = tonumber(count)
    end
    wants[i] = want
  end
  return wants
end

-- The error of one want. Which one, and what of it, stands in front of the detail.
local function fault(code, want, field, detail)
  return redis.error_reply(code .. ' [' .. want.place .. '].' .. field .. ' ' .. detail)
end

-- The error of a want whose secret is another's, or of what is over; nil where there is none.
local function refuse(want, state, holder)
  if state == 'elsewhere' or (state and holder ~= want.name) then
    return fault('INVALID', want, 'secret', 'belongs to another offer')
  elseif state == 'released' then
    return fault('OFFER_ACCEPTED', want, 'secret', 'this offer was accepted, and its port was released')
  elseif state == 'rejected' then
    return fault('OFFER_REJECTED', want, 'secret', 'this offer was rejected already')
  end
end
