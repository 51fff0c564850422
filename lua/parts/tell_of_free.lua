-- Tells those who wait in line that `count` ports from `port` on were given back.
local first_back, last_back = tonumber(port), port + count - 1
-- include service
-- include waitlist
-- include runs
-- include row_around
local _, shortest = no_rows_up_to()
notify_of_ports(cooldown == '0' and shortest and row_around(first_back, last_back, shortest))
