-- Looks whether the state in Redis is the one that a server knew: not another one, and not an older one. Each second the first
-- server to look adds a pulse, so a state that was restored, or that a failover has thrown back, lacks those that a server saw.
--
-- KEYS   epoch HASH
-- ARGV   the schema of the server, the id of the epoch that it knew ('' if it has just started), an id for a new epoch, what to do
--        if there is none ('': nothing, else begin one that is so: 'kept' or 'lost'), the last pulse that the server saw (Unix ms,
--        '0': none), the highest fence that it saw, by how many ms it found a fence behind, by how many ms a state may be behind
--        that is built upon, how many allocations that the server acknowledged are not in a state that is behind
--
-- answer {state, id, schema, pulse, behind, ahead, now, fence}
--   state   'kept'   it is the state that the server knew, or one that it sees for the first time, or one that was recovered
--           'lost'   some server knew another state, or a much newer one; nobody has recovered it yet
--           'none'   there is none
--           'other'  it has another schema: nothing else is looked at
--   pulse   the last one
--   behind  the ms by which the state is older than what the server knew; '0' if it is not
--   ahead   the ms by which Redis' clock stepped back since the last pulse; '0' if it did not
--   now     Unix ms
--   fence   the highest that a server reported, of a state that is lost or whose clock stepped back
-- errors none
--
-- At worst about 60 us where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock

local keys = {epoch = KEYS[1]}
local mine, known, new, begin, pulse = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fence, fence_behind, most, unknown = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local now = read_clock()

local kept_pulses = 32

-- Writes also if Redis is full: HDEL of nothing is not refused then, and so nothing after it. A pulse that a server is told of and
-- that is not there would look like an older state.
local function note(...)
  call('HDEL', keys.epoch, '')
  call('HSET', keys.epoch, ...)
end

local id, state, schema, missed, pulses, highest, was_behind, was_unknown =
  unpack(call('HMGET', keys.epoch, 'id', 'state', 'schema', 'missed', 'pulses', 'fence', 'behind', 'unknown'))
if not id then
  if begin == '' then return {'none', '', '0', '0', '0', '0', now, '0'} end
  state = known == '' and begin or 'lost'
  call('HSET', keys.epoch, 'schema', mine, 'id', new, 'state', state, 'since', now, 'missed', known, 'pulses', now,
    'fence', fence)
  return {state, new, mine, now, '0', '0', now, fence}
end
if schema ~= mine then return {'other', id, schema, '0', '0', '0', now, '0'} end

-- By how much the pulses of this epoch are older than the one that the server saw: 0 if that is among them, or older than all.
local function lag()
  local before, count = nil, 0
  for each in string.gmatch(pulses, '%d+') do
    if each == pulse then return 0 end
    if tonumber(each) < tonumber(pulse) then before = each end
    count = count + 1
  end
  return before and pulse - before or 0
end

local behind = tonumber(fence_behind)
if known == id and pulse ~= '0' then behind = math.max(behind, lag()) end
local is_known = known == '' or known == id or string.find(' ' .. missed .. ' ', ' ' .. known .. ' ', 1, true)
if not is_known then
  note('missed', string.sub(missed .. ' ' .. known, -3700)) -- those of 100 epochs
end
if behind > 0 and (state == 'kept' or behind > tonumber(was_behind or 0)) then
  note('behind', string.format('%d', behind))
end
if state == 'kept' and (not is_known or behind > tonumber(most)) then
  state = 'lost'
  note('state', state, 'since', now)
end
if unknown ~= '0' then note('unknown', string.format('%d', (was_unknown or 0) + unknown)) end

local last = string.match(pulses, '%d+$')
local ahead = math.max(last - now, known == id and pulse - now or 0, 0)
if (state == 'lost' or behind > 0 or ahead > 0) and tonumber(fence) > tonumber(highest) then
  highest = fence
  note('fence', fence)
end
-- One that has just started leaves the pulses to those who know whether some are missing.
if state == 'kept' and known == id and (behind > 0 or now - last >= 1000 or now - last < 0) then
  pulses = string.sub(pulses .. ' ' .. now, -14 * kept_pulses + 1)
  last = now
  note('pulses', pulses)
end
return {state, id, schema, last, string.format('%d', behind), string.format('%d', ahead), now, highest}
