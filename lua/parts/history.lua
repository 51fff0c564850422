-- The history of a service: `events` is its STREAM, and nothing else writes to it. The id of an entry is its time. Its
-- fields, in this order, without those that say nothing:
--   event   allocated, released, renewed (by another than its owner), in_use (an offer was rejected, or an
--           allocation released, as such),
--           expired (a script found that the lease had ended), and of the service: defined, changed, removed
--   name, port, count (if more than 1), fence, owner
--   start, end, and if there are several, ranges (that were defined, as of parts/ranges.lua)
--   request, the id of the request, but for expired
--   until   when its lease ends, or ended
-- The names that an entry has in common with those before it take no memory.
--
-- The ARGV of a script that has the key begin with `events`: how many of them are kept ('0': none is written, '': this
-- script drops none), and `request`: the id of the request ('': unknown). A script of several calls has them of each.

-- Adds an event: a list of `n` fields and values. `most` is how many are kept.
local function write_event(events, most, event, n)
  if most == '' then
    redis.pcall('XADD', events, '*', unpack(event, 1, n))
  else
    redis.pcall('XADD', events, 'MAXLEN', '~', most, '*', unpack(event, 1, n))
  end
end

-- Adds an event about ports. fence, owner and ends may be nil. Where several calls have arguments, `at` is where those
-- of the call begin. An event that cannot be written is missing: the script goes on, since what it is about is done.
-- Most events take the short way.
local function add_event(events, event, name, port, count, fence, owner, ends, at)
  local most, request = ARGV[at or 1], ARGV[at and at + 1 or 2]
  if most == '0' then return end
  if most == '' and request == '' and count == 1 and fence and not owner and not ends then
    redis.pcall('XADD', events, '*', 'event', event, 'name', name, 'port', port, 'fence', fence)
    return
  end
  -- The nils make room: a table that grows costs more.
  local all, n = {'event', event, 'name', name, 'port', port, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}, 6
  if count > 1 then all[7], all[8], n = 'count', count, 8 end
  if fence then all[n + 1], all[n + 2], n = 'fence', fence, n + 2 end
  if owner then all[n + 1], all[n + 2], n = 'owner', owner, n + 2 end
  if request ~= '' and event ~= 'expired' then all[n + 1], all[n + 2], n = 'request', request, n + 2 end
  if ends then all[n + 1], all[n + 2], n = 'until', ends, n + 2 end
  write_event(events, most, all, n)
end

-- Adds an event about the service itself: defined or changed, with its ranges, or removed.
local function add_change(events, event, ...)
  if ARGV[1] == '0' then return end
  local all = {'event', event, ...}
  if ARGV[2] ~= '' then all[#all + 1], all[#all + 2] = 'request', ARGV[2] end
  write_event(events, ARGV[1], all, #all)
end

-- Lets the history outlive its service by 31 days. Also where no events are written: there may be older ones.
local function end_history(events)
  redis.pcall('PEXPIRE', events, '2678400000')
end

-- Lets the history of a service that is defined again stay.
local function resume_history(events)
  redis.pcall('PERSIST', events)
end
