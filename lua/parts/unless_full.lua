-- Ends a newcomer's script before its first change if Redis is full. ZADD XX of nothing changes nothing, but Redis refuses it then.
-- After it nothing is refused, so no script stops half-way.
call('ZADD', free, 'XX', '0', '')
