-- Holds the keys of a service against each other for some of its ports, and repairs what contradicts the records of
-- holders: entries without a record are removed, and those that a record lacks are put back. A record is never changed.
-- Where two records claim a port or a name, nothing is repaired.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, run_lengths ZSET, names HASH, offers HASH, ports HASH, leases ZSET,
--        resting ZSET, rest HASH
-- ARGV   the first of the ports, the last of them (64 at most, of one range), '1' to repair
--
-- answer {findings, offers, owned, there, drains}
--   findings  {code, port, detail, '1' if it was repaired} of each; the codes stand beside what they mean below
--   offers    port and secret of each open offer of these ports, for check_offers.lua
--   owned     port, first port of its block, and owner of each that has an owner, for check_owners.lua
--   there     how many of the ports drain and are in a key, and drains: 'COUNT RANGES' of parts/drains.lua then; -1 and
--             '' if none of them can drain
--        0    settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--
-- At worst 64 ports, each to be repaired: about 2 ms where an offer takes 10 us.
local call = redis.call
-- include clock: read_clock
-- include drains: said_of
-- include ranges: first_within
-- include record: count_of, is_first_port, is_live, name_of, owner_of, parse_allocation, parse_offer
-- include resting: let_rest
-- include runs: cut_run, run_of
-- include service: is_changing, no_service, read_service
-- include services/check_runs: check_lengths, read_runs
-- include services/overlaps: read_pool_ranges
-- include services/report: begin_report

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], run_lengths = KEYS[4], names = KEYS[5], offers = KEYS[6],
  ports = KEYS[7], leases = KEYS[8], resting = KEYS[9], rest = KEYS[10],
}
local repairs = ARGV[3] == '1'
local now = read_clock()
local longest_block = 100
local service = read_service(keys, now, string.match(keys.service, ':service:(.*)$'))
if not service.cooldown then return redis.error_reply(no_service(service.name)) end
if is_changing(service) then return 0 end

local range
local all_ranges, _, draining = read_pool_ranges(keys)
for _, each in ipairs(all_ranges) do
  if not range and tonumber(ARGV[1]) <= each[2] and tonumber(ARGV[2]) >= each[1] then range = each end
end
local findings, open_offers, owned = {}, {}, {}
if not range then return {findings, open_offers, owned, -1, ''} end
local first, last = math.max(ARGV[1], range[1]), math.min(ARGV[2], range[2])
local report = begin_report(keys, findings, repairs)
local is_draining = first_within(draining, first, last) ~= nil

-- Whether two times are the same; either may be nil.
local function is_same(one, other)
  return tonumber(one or 0) == tonumber(other or 0)
end

local function cut_fresh(port)
  local number, run_first, run_last = tonumber(port), run_of(keys, port)
  if run_first then cut_run(keys, run_first, run_last, number, number) end
end

local function make_free(port)
  call('ZADD', keys.free, now, port)
end

-- Of the ports of blocks the first has the record: which block each of these ports is of beside the first.
local function read_blocks(key, is_held)
  local all, block_of = {}, {}
  for port = first - longest_block + 1, last do all[#all + 1] = string.format('%d', port) end
  for i, record in ipairs(call('HMGET', key, unpack(all))) do
    if record and is_held(record) then
      for port = all[i] + 1, all[i] + count_of(record) - 1 do block_of[port] = {first = all[i], record = record} end
    end
  end
  return block_of
end

local function is_allocation(record)
  return not is_first_port(record)
end

local function is_open_offer(record)
  return record ~= 'leased' and is_live(record, now)
end

-- What stands at each port.
local function read_ports(runs)
  local all, at, number = {}, {}, 1
  for port = first, last do all[#all + 1] = string.format('%d', port) end
  local blocks, offered_blocks = read_blocks(keys.ports, is_allocation), read_blocks(keys.offers, is_open_offer)
  local scores, allocations = call('ZMSCORE', keys.free, unpack(all)), call('HMGET', keys.ports, unpack(all))
  local offers, leases = call('HMGET', keys.offers, unpack(all)), call('ZMSCORE', keys.leases, unpack(all))
  local resting, rest = call('ZMSCORE', keys.resting, unpack(all)), call('HMGET', keys.rest, unpack(all))
  for i, port in ipairs(all) do
    while runs[number] and runs[number][2] < tonumber(port) do number = number + 1 end
    at[i] = {
      port = port, score = scores[i], allocation = allocations[i], offer = offers[i], lease = leases[i],
      resting = resting[i], rest = rest[i], block = blocks[tonumber(port)],
      offered_block = offered_blocks[tonumber(port)],
      fresh = runs[number] ~= nil and runs[number][1] <= tonumber(port),
    }
  end
  return at
end

-- The name that a holder is found by.
local function check_name(at, record)
  local name = name_of(record)
  local port = call('HGET', keys.names, name)
  if not port then
    report('name_missing', at.port, name .. ' has the port, and is not among the names', function()
      call('HSET', keys.names, name, at.port)
    end)
  elseif port ~= at.port then
    report('name_elsewhere', at.port, name .. ' has the port, and port ' .. port .. ' by its name')
  end
end

-- A port with a holder must not be handed out.
local function check_withheld(at, holder)
  if at.fresh then
    report('held_and_fresh', at.port, holder .. ' has the port, which would be handed out as fresh', function()
      cut_fresh(at.port)
    end)
  end
  if at.resting then
    report('held_and_resting', at.port, holder .. ' has the port, which would be free after its rest', function()
      call('ZREM', keys.resting, at.port)
    end)
  end
end

-- A port of a block leads to the first.
local function check_block(at)
  if at.block and at.allocation ~= at.block.first then
    report('block_entry', at.port, name_of(at.block.record) .. ' has the block of port ' .. at.block.first ..
      ', and the port does not lead there', function()
        call('HSET', keys.ports, at.port, at.block.first)
      end)
  end
end

local function check_allocated(at, record)
  local can_read, name, _, _, lease = pcall(function() return parse_allocation(record) end)
  if not can_read then return report('malformed', at.port, 'the record of an allocation cannot be read') end
  local other = at.offered_block and at.offered_block.record or at.offer and is_open_offer(at.offer) and at.offer
    or at.block and at.block.record ~= record and at.block.record
  if other then
    return report('two_holders', at.port, name .. ' has the port, and so has ' .. tostring(name_of(other)))
  end
  check_withheld(at, name)
  check_block(at)
  if not at.block then check_name(at, record) end
  if lease then
    local ends = string.match(record, '"expires":(%d+)')
    if not is_same(at.score, ends) or not is_same(at.lease, ends) or at.offer ~= 'leased' then
      report('lease_entries', at.port, name .. ' has a lease until ' .. ends .. '; the port is free from ' ..
        tostring(at.score) .. ' and leased until ' .. tostring(at.lease), function()
          call('ZADD', keys.free, ends, at.port)
          call('ZADD', keys.leases, ends, at.port)
          call('HSET', keys.offers, at.port, 'leased')
        end)
    end
    return
  end
  if at.score then
    report('held_and_free', at.port, name .. ' has the port, which would be handed out', function()
      call('ZREM', keys.free, at.port)
    end)
  end
  if at.lease or at.offer == 'leased' then
    report('lease_of_nobody', at.port, name .. ' has the port without a lease, and it is marked as leased', function()
      call('ZREM', keys.leases, at.port)
      call('HDEL', keys.offers, at.port)
    end)
  end
end

local function check_offered(at)
  local can_read, _, name, _, count, expires = pcall(function() return parse_offer(at.offer) end)
  if not can_read then return report('malformed', at.port, 'the record of an offer cannot be read') end
  check_withheld(at, name)
  check_name(at, at.offer)
  for port = at.port + 1, at.port + count - 1 do
    local score = call('ZSCORE', keys.free, string.format('%d', port))
    if not is_same(score, expires) then
      report('offer_entries', port, name .. ' is offered the block until ' .. expires .. ', the port is free from ' ..
        tostring(score), function()
          call('ZADD', keys.free, expires, string.format('%d', port))
        end)
    end
  end
  if not is_same(at.score, expires) then
    report('offer_entries', at.port, name .. ' is offered the port until ' .. expires .. ', it is free from ' ..
      tostring(at.score), function()
        call('ZADD', keys.free, expires, at.port)
      end)
  end
  open_offers[#open_offers + 1] = at.port
  open_offers[#open_offers + 1] = string.match(at.offer, '"secret":"([^"]+)"')
end

-- What is left at a port that nobody has.
local function check_leftovers(at)
  if at.allocation then
    local detail = 'the port is of the block of port ' .. at.allocation .. ', which has none'
    report('block_of_nobody', at.port, detail, function() call('HDEL', keys.ports, at.port) end)
  end
  if at.lease or at.offer == 'leased' then
    report('lease_of_nobody', at.port, 'the port is marked as leased, and nobody has it', function()
      call('ZREM', keys.leases, at.port)
      call('HDEL', keys.offers, at.port)
    end)
  end
end

-- A port that nobody has is in one of free, fresh and resting.
local function check_unheld(at)
  check_leftovers(at)
  if is_draining then return end
  local due = at.rest and tonumber(at.rest) > tonumber(now)
  if due and not at.resting then
    local detail = 'the port rests until ' .. at.rest .. ', and would be handed out before'
    report('rest_forgotten', at.port, detail, function()
      call('ZREM', keys.free, at.port)
      cut_fresh(at.port)
      let_rest(keys, {at.port, at.rest})
    end)
  elseif at.resting and (at.score or at.fresh) then
    local detail = 'the port rests until ' .. at.resting .. ', and would be handed out before'
    report('free_and_resting', at.port, detail, function()
      call('ZREM', keys.free, at.port)
      cut_fresh(at.port)
    end)
  elseif at.score and at.fresh then
    report('free_and_fresh', at.port, 'the port is both given back and fresh, and would be handed out twice', function()
      cut_fresh(at.port)
    end)
  elseif not (at.score or at.fresh or at.resting) then
    report('lost', at.port, 'the port is neither free, nor has anybody got it', function() make_free(at.port) end)
  elseif at.score and tonumber(at.score) > tonumber(now) then
    report('kept_for_nobody', at.port, 'the port is kept until ' .. at.score .. ', and nobody has it', function()
      make_free(at.port)
    end)
  end
  if at.resting and not (at.rest and tonumber(at.rest) >= tonumber(at.resting)) then
    report('rest_unnoted', at.port, 'the rest of the port would be forgotten with its service', function()
      let_rest(keys, {at.port, at.resting})
    end)
  end
end

local function note_owner(at, record, block)
  local owner = owner_of(record)
  if not owner then return end
  owned[#owned + 1] = at.port
  owned[#owned + 1] = block and block.first or at.port
  owned[#owned + 1] = owner
end

local function check_port(at)
  local is_first = at.allocation and is_allocation(at.allocation)
  local record = is_first and at.allocation or at.block and at.block.record
  local is_offer = not record and at.offer and is_open_offer(at.offer)
  if record then
    note_owner(at, record, not is_first and at.block)
  elseif is_offer then
    note_owner(at, at.offer)
  elseif at.offered_block then
    note_owner(at, at.offered_block.record, at.offered_block)
  end
  if record then
    check_allocated(at, record)
  elseif is_offer then
    check_offered(at)
  elseif at.offered_block then
    check_withheld(at, name_of(at.offered_block.record))
  else
    check_unheld(at)
  end
end

local runs = read_runs(keys, first, last, report)
check_lengths(keys, runs, first, range[2], report)
for _, at in ipairs(read_ports(runs)) do check_port(at) end
if not is_draining then return {findings, open_offers, owned, -1, ''} end

local all, there = {}, 0
for port = first, last do all[#all + 1] = string.format('%d', port) end
local scores, allocations = call('ZMSCORE', keys.free, unpack(all)), call('HMGET', keys.ports, unpack(all))
for i = 1, #all do
  if scores[i] or allocations[i] then there = there + 1 end
end
return {findings, open_offers, owned, there, said_of(service.drains)}
