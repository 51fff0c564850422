-- What a script finds in Redis and in miniredis alike, and nothing else: no io, os, print or global of its own.
std = {
  read_globals = {
    'redis', 'KEYS', 'ARGV', 'cjson', 'math', 'string', 'table',
    'error', 'ipairs', 'next', 'pairs', 'pcall', 'select', 'tonumber', 'tostring', 'type', 'unpack',
  },
}
max_line_length = 135

ignore = {
  '211', '231', '311', -- unused: a key, a function or a value of a part that this script does not need
  '411', '421', '431', '432', -- a name again: a part has names of its own
}
