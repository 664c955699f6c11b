-- Changes an approval, if it still is as it was read. Returns whether it was.
--
-- KEYS[1]  the questions of a run (hash: path of the node -> packed approval)
-- ARGV[1]  path of the node; [2] what was read; [3] what it becomes, empty to remove it

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1
