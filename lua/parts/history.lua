-- The history of a service: `events` is its STREAM, and nothing else writes to it. The id of an entry is its time. Its
-- fields, in this order, without those that say nothing:
--   event   allocated, released, renewed (by another than its owner), in_use (an offer was rejected as such),
--           expired (a script found that the lease had ended), and of the service: defined, changed, removed
--   name, port, count (if more than 1), fence, owner
--   start, end (of the range that was defined)
--   request, the id of the request, but for expired
--   until   when its lease ends, or ended
-- The names that an entry has in common with those before it take no memory.
--
-- The ARGV of a script that has the key begin with `events`: how many of them are kept ('0': none is written, '': this
-- script drops none), and `request`: the id of the request ('': unknown).

-- Adds an event, which is a list of its fields and their values.
local function write_event(events, event)
  if ARGV[1] == '' then
    redis.pcall('XADD', events, '*', unpack(event))
  else
    redis.pcall('XADD', events, 'MAXLEN', '~', ARGV[1], '*', unpack(event))
  end
end

-- Adds an event about ports. fence, owner and ends may be nil. An event that cannot be written is missing: the script
-- goes on, since what it is about is done. Most events take the short way.
local function add_event(events, event, name, port, count, fence, owner, ends)
  local most, request = ARGV[1], ARGV[2]
  if most == '0' then return end
  if most == '' and request == '' and count == 1 and fence and not owner and not ends then
    redis.pcall('XADD', events, '*', 'event', event, 'name', name, 'port', port, 'fence', fence)
    return
  end
  local entry = {'event', event, 'name', name, 'port', port}
  if count > 1 then entry[7], entry[8] = 'count', count end
  if fence then entry[#entry + 1], entry[#entry + 2] = 'fence', fence end
  if owner then entry[#entry + 1], entry[#entry + 2] = 'owner', owner end
  if request ~= '' and event ~= 'expired' then entry[#entry + 1], entry[#entry + 2] = 'request', request end
  if ends then entry[#entry + 1], entry[#entry + 2] = 'until', ends end
  write_event(events, entry)
end

-- Adds an event about the service itself: defined or changed, with its range, or removed.
local function add_change(events, event, ...)
  if ARGV[1] == '0' then return end
  local entry = {'event', event, ...}
  if ARGV[2] ~= '' then entry[#entry + 1], entry[#entry + 2] = 'request', ARGV[2] end
  write_event(events, entry)
end

-- Lets the history outlive its service by 31 days. Also where no events are written: there may be older ones.
local function end_history(events)
  redis.pcall('PEXPIRE', events, '2678400000')
end

-- Lets the history of a service that is defined again stay.
local function resume_history(events)
  redis.pcall('PERSIST', events)
end
