local call = redis.call
-- include record: has_labels, has_secret

-- The labels of offers and allocations. `labels` has them by the first port of each hold that has some, as
-- {"secret":"...","labels":{"job":"4711"}}: without white space, sorted, with escapes for " and \ only. The secret says
-- whose they are: an allocation has that of its offer, and the next holder of the port has another. A record tells
-- whether it has labels, so no script reads them for one that has none.

-- The labels of a record at a port, as JSON; nil if it has none.
local function labels_of(keys, port, record)
  local entry = has_labels(record) and call('HGET', keys.labels, port)
  local secret, labels = string.match(entry or '', '^{"secret":"([^"]+)","labels":({.*})}$')
  return secret and has_secret(record, secret) and labels or nil
end

-- A record as scripts answer it: with its labels, if it has any, behind it.
local function with_labels(keys, port, record)
  return record .. (labels_of(keys, port, record) or '')
end

-- Adds their labels to the answers to requests, each a record, or {record}.
local function add_labels(keys, answers)
  for i, answer in ipairs(answers) do
    local record = type(answer) == 'table' and answer[1] or answer
    if has_labels(record) then
      record = with_labels(keys, string.match(record, '"port":(%d+)'), record)
      answers[i] = type(answer) == 'table' and {record} or record
    end
  end
  return answers
end

-- What `labels` has of a hold.
local function labels_entry(secret, labels)
  return '{"secret":"' .. secret .. '","labels":' .. labels .. '}'
end

-- Writes the labels of those of some requests that have any.
local function write_labels(keys, requests)
  local entries = {}
  for _, request in ipairs(requests) do
    if request.labels then
      entries[#entries + 1] = request.port
      entries[#entries + 1] = labels_entry(request.secret, request.labels)
    end
  end
  if #entries > 0 then call('HSET', keys.labels, unpack(entries)) end
end

-- Labels as JSON, and their number and size in bytes; nil if there are none.
local function encode_labels(of)
  local all, size = {}, 0
  for key in pairs(of) do all[#all + 1] = key end
  table.sort(all)
  for i, key in ipairs(all) do
    size = size + #key + #of[key]
    all[i] = '"' .. key .. '":"' .. string.gsub(of[key], '["\\]', '\\%0') .. '"'
  end
  return #all > 0 and '{' .. table.concat(all, ',') .. '}' or nil, #all, size
end

-- Returns labels as JSON, nil if there are none, after some were set and others removed; or nil, and what is wrong. The
-- bounds are those of allocator/labels.go.
local function merge_labels(labels, changes, gone)
  local of = cjson.decode(labels)
  for key, value in pairs(cjson.decode(changes)) do of[key] = value end
  for _, key in ipairs(gone) do of[key] = nil end
  local merged, count, size = encode_labels(of)
  if count > 16 then return nil, 'has ' .. count .. ' labels; at most 16 are allowed' end
  if size > 2048 then return nil, 'has keys and values of ' .. size .. ' bytes; at most 2048 are allowed' end
  return merged
end
