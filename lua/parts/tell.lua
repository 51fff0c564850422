-- Tells those who wait in line that a port came free, or when one will.
if call('EXISTS', line) == 1 then
  -- include service
  -- include waitlist
  notify_of_ports()
end
