-- Appends to a context or replaces it, if it has the expected version and the result fits.
--
-- KEYS as in context_load. ARGV[1] expected version or ''; [2] time to live in ms; [3] most turns;
-- [4] most bytes; [5] 'append' or 'replace'; [6] packed details ('' when appending); [7..] packed turns
--
-- Returns {'ok', new version}, {'conflict', version} or {'too large', version}.

local FIRST_TURN = 7
local document, turns = KEYS[1], KEYS[2]
local most_turns, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])

local version = tonumber(redis.call('HGET', document, 'version') or 0)
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= version then
  return {'conflict', version}
end

local replacing = ARGV[5] == 'replace'
local details = replacing and #ARGV[6] or redis.call('HSTRLEN', document, 'details')
local added = 0
for i = FIRST_TURN, #ARGV do
  added = added + #ARGV[i]
end
if details + added > most_bytes or #ARGV - FIRST_TURN + 1 > most_turns then
  return {'too large', version}
end

if replacing then
  redis.call('DEL', document, turns)
  redis.call('HSET', document, 'details', ARGV[6])
end
local bytes = tonumber(redis.call('HGET', document, 'bytes') or 0) + added
local count = redis.call('LLEN', turns)
for i = FIRST_TURN, #ARGV do
  count = redis.call('RPUSH', turns, ARGV[i])
end
while count > most_turns or details + bytes > most_bytes do
  bytes = bytes - #redis.call('LPOP', turns)
  count = count - 1
end
redis.call('HSET', document, 'version', version + 1, 'bytes', bytes)
redis.call('PEXPIRE', document, ARGV[2])
redis.call('PEXPIRE', turns, ARGV[2])
return {'ok', version + 1}
