-- Most calls find that nobody waits, so what these need is made only when they are called: to make a function costs a script
-- as much as to run a short one.

-- Tells those who wait that a port came free, or when one will. Takes keys, now, and the service's name.
local function tell_of_change(...)
  -- include waitlist: notify_of_change
  notify_of_change(...)
end

-- Tells those who wait that ports were given back. Takes keys, now, the service's name, the first port, and how many they are.
local function tell_of_return(...)
  -- include waitlist: notify_of_return
  notify_of_return(...)
end

return tell_of_change, tell_of_return
