-- Writes the record of a run, lists it, and forgets the oldest runs of the tenant beyond the most. What a
-- process says that another has taken the run over from is not written.
--
-- KEYS[1]  the run (hash: summary, record, attempt); KEYS[2]  the index (sorted set: 'RUN_ID GRAPH' by start in ms)
-- ARGV[1]  time to live in ms; [2] most runs; [3] start in ms; [4] member of the index
-- ARGV[5]  packed summary; [6] packed record; [7] the key of a run without its id; [8] attempt

local ttl, most, started = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = KEYS[2]

if tonumber(redis.call('HGET', KEYS[1], 'attempt') or 0) > tonumber(ARGV[8]) then
  return
end
redis.call('HSET', KEYS[1], 'summary', ARGV[5], 'record', ARGV[6], 'attempt', ARGV[8])
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('ZADD', index, started, ARGV[4])
redis.call('PEXPIRE', index, ttl)

redis.call('ZREMRANGEBYSCORE', index, '-inf', started - ttl)
local beyond = redis.call('ZCARD', index) - most
if beyond > 0 then
  local oldest = redis.call('ZPOPMIN', index, beyond)
  for i = 1, #oldest, 2 do
    redis.call('DEL', ARGV[7] .. string.match(oldest[i], '^%S+'))
  end
end
