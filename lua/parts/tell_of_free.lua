-- Tells those who wait in line that `count` ports from `port` on were given back.
local first_back, last_back = tonumber(port), port + count - 1
-- include service
-- include waitlist
-- include runs
-- include row_around
local _, shortest = no_rows_up_to()
local score = shortest and call('ZSCORE', free, port) -- none where they are kept out, a later one where they cool down
notify_of_ports(score and tonumber(score) <= tonumber(free_before) and row_around(first_back, last_back, shortest))
