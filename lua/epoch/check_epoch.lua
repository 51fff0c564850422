-- Checks that the state in Redis is the one that a server knew: not another one, and not an older one. Each second,
-- the first server to check adds a pulse. So a state that was restored, or that a failover has thrown back, lacks
-- pulses that a server saw.
--
-- KEYS   epoch HASH
-- ARGV   the schema of the server, the id of the epoch that it knew ('' if it has just started), an id for a new
--        epoch, the state of the epoch that it begins if there is none ('': it begins none; 'kept' or 'lost'), the
--        last pulse that the server saw (Unix ms, '0': none), the highest fence that it saw, by how many ms it found
--        a fence behind, by how many ms a state that is kept may be behind, how many allocations that the server
--        acknowledged a state that is behind lacks
--
-- answer {state, id, schema, pulse, behind, ahead, now, fence}
--   state   'kept'   it is the state that the server knew, or one that it sees first, or one that was recovered
--           'lost'   a server knew another state, or a much newer one, and nobody has recovered this one yet
--           'none'   there is none
--           'other'  it has another schema: nothing else was checked
--   pulse   the last one
--   behind  the ms by which the state is older than what the server knew; '0' if it is not
--   ahead   the ms by which Redis's clock stepped back since the last pulse; '0' if it did not
--   now     Unix ms
--   fence   the highest that a server reported of a state that is lost or whose clock stepped back
-- errors none
--
-- Worst case: about 60 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include full_redis: write_though_full

local keys = {epoch = KEYS[1]}
local own_schema, known, new_id, new_state, pulse, fence, fence_behind, most_behind, lacking = unpack(ARGV)
local now = read_clock()

local kept_pulses = 32

-- Writes fields, even if Redis is full: if a server saw a pulse that is not there, the state would look like an older
-- one.
local function note(...)
  write_though_full(keys.epoch)
  call('HSET', keys.epoch, ...)
end

local id, state, schema, missed, pulses, highest, was_behind, unknown =
  unpack(call('HMGET', keys.epoch, 'id', 'state', 'schema', 'missed', 'pulses', 'fence', 'behind', 'unknown'))
if not id then
  if new_state == '' then return {'none', '', '0', '0', '0', '0', now, '0'} end
  state = known == '' and new_state or 'lost'
  call('HSET', keys.epoch, 'schema', own_schema, 'id', new_id, 'state', state, 'since', now, 'missed', known,
    'pulses', now, 'fence', fence)
  return {state, new_id, own_schema, now, '0', '0', now, fence}
end
if schema ~= own_schema then return {'other', id, schema, '0', '0', '0', now, '0'} end

-- By how many ms the pulses of this epoch are older than the one that the server saw; 0 if that is among them, or
-- older than all.
local function lag()
  local before
  for each in string.gmatch(pulses, '%d+') do
    if each == pulse then return 0 end
    if tonumber(each) < tonumber(pulse) then before = each end
  end
  return before and pulse - before or 0
end

local behind = tonumber(fence_behind)
if known == id and pulse ~= '0' then behind = math.max(behind, lag()) end
local is_known = known == '' or known == id or string.find(' ' .. missed .. ' ', ' ' .. known .. ' ', 1, true)
if not is_known then
  note('missed', string.sub(missed .. ' ' .. known, -3700)) -- the ids of 100 epochs
end
if behind > 0 and (state == 'kept' or behind > tonumber(was_behind or 0)) then
  note('behind', string.format('%d', behind))
end
if state == 'kept' and (not is_known or behind > tonumber(most_behind)) then
  state = 'lost'
  note('state', state, 'since', now)
end
if lacking ~= '0' then note('unknown', string.format('%d', (unknown or 0) + lacking)) end

local last = string.match(pulses, '%d+$')
local ahead = math.max(last - now, known == id and pulse - now or 0, 0)
if (state == 'lost' or behind > 0 or ahead > 0) and tonumber(fence) > tonumber(highest) then
  highest = fence
  note('fence', fence)
end
-- A server that has just started adds no pulse: only servers that know the epoch can tell whether pulses are missing.
if state == 'kept' and known == id and (behind > 0 or now - last >= 1000 or now - last < 0) then
  pulses = string.sub(pulses .. ' ' .. now, -14 * kept_pulses + 1)
  last = now
  note('pulses', pulses)
end
return {state, id, schema, last, string.format('%d', behind), string.format('%d', ahead), now, highest}
