-- The history of a service: `events` is its STREAM, and nothing else writes to it. The id of an entry is its time. Its
-- fields, in this order, without those that say nothing:
--   event   allocated, released, renewed (by another than its owner), in_use (an offer was rejected as such),
--           expired (a script found that the lease had ended), and of the service: defined, changed, removed
--   name, port, count (if more than 1), fence, owner
--   start, end, and if there are several, ranges (that were defined)
--   request, the id of the request, but for expired
--   until   when its lease ends, or ended
-- The names that an entry has in common with the one before it take no memory.
--
-- A script that has the key begins its ARGV with how many events are kept ('0': none is written), and the id of the
-- request ('': unknown).

-- Adds a field to an entry, unless it has no value.
local function add_field(entry, field, value)
  if value then entry[#entry + 1], entry[#entry + 2] = field, value end
end

-- Adds an event about ports. fence, owner and ends may be nil. If it cannot be written, it is missing, and the script
-- goes on: the change that it is about is made. Most events take the short way, which saves a third.
local function add_event(events, event, name, port, count, fence, owner, ends)
  local most, request = ARGV[1], ARGV[2]
  if most == '0' then return end
  if count == 1 and fence and not owner and not ends and request ~= '' then
    redis.pcall('XADD', events, 'MAXLEN', '~', most, '*', 'event', event, 'name', name, 'port', port, 'fence', fence,
      'request', request)
    return
  end
  local entry = {'event', event, 'name', name, 'port', port}
  add_field(entry, 'count', count > 1 and count)
  add_field(entry, 'fence', fence)
  add_field(entry, 'owner', owner)
  add_field(entry, 'request', request ~= '' and event ~= 'expired' and request)
  add_field(entry, 'until', ends)
  redis.pcall('XADD', events, 'MAXLEN', '~', most, '*', unpack(entry))
end

-- Adds an event about the service itself: defined or changed, with its ranges as of parts/ranges.lua, or removed.
local function add_change(events, event, start, stop, several)
  if ARGV[1] == '0' then return end
  local entry = {'event', event}
  add_field(entry, 'start', start)
  add_field(entry, 'end', stop)
  add_field(entry, 'ranges', several)
  add_field(entry, 'request', ARGV[2] ~= '' and ARGV[2])
  redis.pcall('XADD', events, 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
end
