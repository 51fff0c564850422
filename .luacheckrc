-- What a script finds in Redis and in miniredis alike, and nothing else: no io, os, print or global of its own.
std = {
  read_globals = {
    'redis', 'KEYS', 'ARGV', 'cjson', 'math', 'string', 'table',
    'error', 'ipairs', 'next', 'pairs', 'pcall', 'select', 'tonumber', 'tostring', 'type', 'unpack',
  },
}
max_line_length = 135

-- Fragments stand in front of the scripts that use them (see lua.go): they define what the scripts find there.
local fragments = {
  ['lua/clock.lua'] = {'now'},
  ['lua/secret.lua'] = {'look_up', 'not_found'},
  ['lua/find.lua'] = {'find'},
  ['lua/describe.lua'] = {'describe'},
}
read_globals = {}
for path, names in pairs(fragments) do
  for _, name in ipairs(names) do
    read_globals[#read_globals + 1] = name
  end
  files[path] = {ignore = {'211'}} -- unused in the fragment itself
end
