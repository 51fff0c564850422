-- The record of an offer; count is how many ports in a row the port is the first of.
local expires = string.format('%d', now + ttl)
local function offer_record(name, port, count, lease, secret)
  return '{"service":"' .. service .. '","name":"' .. name .. '","port":' .. port ..
    (count > 1 and ',"count":' .. count or '') .. ',"created":' .. now .. ',"expires":' .. expires ..
    (lease and ',"lease":' .. lease or '') .. ',"secret":"' .. secret .. '"}'
end
