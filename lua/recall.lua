-- Recalls whether the state in Redis is the one that a server knew, and marks it where it is not. A store that was emptied,
-- or replaced by another one, has no mark, or another's.
--
-- KEYS   deployment STRING
-- ARGV   the id of the state that the server knew ('' where it has just started), an id for a new one
--
-- answer {id, state}
--   'kept'  it is the state that the server knew, or one that it sees for the first time, or one that was recovered after the
--           server's was lost
--   'lost'  some server knew another state than this one; nobody has recovered it yet
-- errors none
--
-- At worst about 40 us where an offer takes 10 us.
--
-- The mark has the ids of the states that servers missed: when it is recovered, they and no others take it for theirs.
local deployment = KEYS[1]
local known, new = ARGV[1], ARGV[2]
local call = redis.call
-- include clock
-- include mark

local id, state, missed = read_mark()
if not id then
  if known == '' then return mark(new, 'kept', '') end
  return mark(new, 'lost', known)
end
if known == '' or known == id or string.find(' ' .. missed .. ' ', ' ' .. known .. ' ', 1, true) then return {id, state} end
return mark(id, 'lost', missed == '' and known or missed .. ' ' .. known)
