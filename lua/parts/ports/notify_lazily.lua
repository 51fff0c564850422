-- Most scripts find that no call waits. To define the functions of the waitlist takes as long as a short script runs,
-- so these functions define them only when they are called.

-- Tells the servers whose turn it is after leases changed. Takes keys, now, and the name of the service.
local function notify_of_leases(...)
  -- include waitlist: notify_of_change
  notify_of_change(...)
end

-- Tells the servers whose turn it is after ports were given back. Takes keys, now, the name of the service, the first
-- port, and how many they are.
local function notify_of_return(...)
  -- include waitlist: notify_of_ports_back
  notify_of_ports_back(...)
end
