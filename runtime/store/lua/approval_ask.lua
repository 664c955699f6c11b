-- Puts a question to a person, in place of what its node asked before. Returns 1, or 0 where the run asks enough.
--
-- KEYS[1]  the questions of a run (hash: path of the node -> packed approval)
-- ARGV[1]  path of the node; [2] packed approval; [3] how long to keep it in ms; [4] most questions

local key, node = KEYS[1], ARGV[1]
local ttl, most = tonumber(ARGV[3]), tonumber(ARGV[4])

if redis.call('HEXISTS', key, node) == 0 and redis.call('HLEN', key) >= most then
  return 0
end
redis.call('HSET', key, node, ARGV[2])
if redis.call('PTTL', key) < ttl then
  redis.call('PEXPIRE', key, ttl)
end
return 1
