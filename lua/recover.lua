-- Declares the state in Redis to be the one that counts from now on, where it is not the one that servers knew. It does so once:
-- another state that takes its place is lost again.
--
-- KEYS   deployment STRING
-- ARGV   an id for it
--
-- answer 'lost' where it was lost, and is no more; 'kept' where it was not, '' where there is none yet: nothing is changed
-- errors none
--
-- It has no case that takes longer than an offer.
local deployment = KEYS[1]
local new = ARGV[1]
local call = redis.call
-- include clock
-- include mark

local id, state, missed = read_mark()
if state == 'lost' then mark(new, 'kept', missed == '' and id or missed .. ' ' .. id) end
return state or ''
