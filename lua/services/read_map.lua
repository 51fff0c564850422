-- Reads what stands at some ports of a service, in one step. Changes nothing.
--
-- KEYS   service HASH, free ZSET, fresh ZSET, offers HASH, ports HASH, resting ZSET
-- ARGV   service, the first of the ports, how many there are
--
-- answer {now (Unix ms), ranges (as text), cooldown (ms), port, {free, ...}, {resting, ...}, {offers, ...},
--        {ports, ...}, ranges that drain (as text)}: from `port` on, what each of these keys has at each port, nil if
--        it has none: of 512 ports at most, and of one range, which may drain, the one that has the first of the
--        ports, or the next. `port` is the first of the ports in it. If that is held as a part of
--        a block, it is the first port of the block; if it is in a run of fresh ports, it is the port after the run.
--        0  settle.lua is to be called until it is done, and then this once more
-- errors SERVICE_NOT_FOUND
--
-- Worst case: 512 leased ports with long names and owners: about 600 us (an offer takes 10 us).
local call = redis.call
-- include clock: read_clock
-- include ranges: text_of
-- include record: count_of, is_first_port, is_live
-- include runs: run_of
-- include service: is_changing, no_service, read_service
-- include services/overlaps: read_pool_ranges

local keys = {
  service = KEYS[1], free = KEYS[2], fresh = KEYS[3], offers = KEYS[4], ports = KEYS[5], resting = KEYS[6],
}
local name, from, most = unpack(ARGV)
local now = read_clock()
local service = read_service(keys, now, name)
if not service.cooldown then return redis.error_reply(no_service(service.name)) end
if is_changing(service) then return 0 end

-- Of an offered block only the first port has the record. Returns the first port of the block that a port is of, or
-- the port itself.
local function first_offered(port)
  local score = call('ZSCORE', keys.free, string.format('%d', port))
  if not score or tonumber(score) <= tonumber(now) then return port end
  local all = {}
  for i = 0, 99 do all[i + 1] = string.format('%d', port - i) end
  for i, record in ipairs(call('HMGET', keys.offers, unpack(all))) do
    if record and record ~= 'leased' and is_live(record, now) then
      return i <= count_of(record) and port - i + 1 or port
    end
  end
  return port
end

-- Where to begin, so that it is in no run of fresh ports, and not within a block.
local function first_port(port)
  local _, run_last = run_of(keys, port)
  if run_last then return run_last + 1 end
  local record = call('HGET', keys.ports, string.format('%d', port))
  if not record then return first_offered(port) end
  local block = is_first_port(record) and call('HGET', keys.ports, record)
  return block and is_live(block, now) and tonumber(record) or port
end

local ranges, own, draining = read_pool_ranges(keys)
local first, last = tonumber(from), -1
for _, range in ipairs(ranges) do
  if first > last and first <= range[2] then
    first = math.max(first, range[1])
    last = math.min(first + most - 1, range[2])
  end
end
if first <= last then first = first_port(first) end

local all = {}
for port = first, math.min(last, first + 511) do all[#all + 1] = string.format('%d', port) end
local answer = {now, text_of(own), service.cooldown, first, {}, {}, {}, {}, text_of(draining)}
if #all == 0 then return answer end
answer[5], answer[6] = call('ZMSCORE', keys.free, unpack(all)), call('ZMSCORE', keys.resting, unpack(all))
answer[7], answer[8] = call('HMGET', keys.offers, unpack(all)), call('HMGET', keys.ports, unpack(all))
return answer
