-- The port to hand out next: the one that has been free the longest; where there is none, the lowest that was never handed
-- out. `run` is then the run that it begins.
local port, run = call('ZRANGEBYSCORE', free, '-inf', free_before, 'LIMIT', '0', '1')[1], nil
if not port then
  run = call('ZRANGE', fresh, '0', '0', 'WITHSCORES')
  port = run[2]
end
