-- What a script finds in Redis and in miniredis alike, and nothing else: no io, os, print or global of its own.
std = {
  read_globals = {
    'redis', 'KEYS', 'ARGV', 'cjson', 'math', 'string', 'table',
    'error', 'ipairs', 'next', 'pairs', 'pcall', 'select', 'tonumber', 'tostring', 'type', 'unpack',
  },
}
max_line_length = 120
