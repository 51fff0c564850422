-- Holds ports of holders against the keys of their owners, and puts back what these lack.
--
-- KEYS   offers HASH, ports HASH, then of each port: owned ZSET (of its owner)
-- ARGV   '1' to repair, then of each port: port, the first port of its block or itself, owner
--
-- answer {finding, ...}  as of check_ports.lua: owner_entry, the key of the owner lacks the port, or has another end: a
--                        quota would be wrong
-- errors none
--
-- At worst 64 ports, each to be repaired: about 400 us where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include owner: add_holds, own_ports
-- include record: count_of, is_first_port, is_live, name_of, owner_of
-- include services/report: begin_report

local keys = {offers = KEYS[1], ports = KEYS[2]}
local repairs = ARGV[1] == '1'
local now = read_clock()
local findings = {}

local report = begin_report(keys, findings, repairs)

for i, key in ipairs({unpack(KEYS, 3)}) do
  local port, first, owner = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local record = call('HGET', keys.ports, first)
  if not record then record = call('HGET', keys.offers, first) end
  local is_held = record and record ~= 'leased' and not is_first_port(record) and is_live(record, now)
  if is_held and owner_of(record) == owner and port - first < count_of(record) then
    local ends = string.match(record, '"expires":(%d+)')
    local known = call('ZSCORE', key, port)
    local holds = add_holds({}, port, 1, ends)
    if tonumber(known or 0) ~= tonumber(holds[1]) then
      local detail = name_of(record) .. ' has the port until ' .. holds[1] .. ', and by the key of its owner until ' ..
        (known or 'never')
      report('owner_entry', port, detail, function()
        keys.owned = key
        own_ports(keys, now, holds)
      end)
    end
  end
end
return findings
