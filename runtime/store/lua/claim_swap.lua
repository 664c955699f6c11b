-- Has a claim become something else where it is still ours: itself again, another word, or nothing.
--
-- KEYS[1]  the claim (string); ARGV[1] our word; [2] what it becomes, '' to give it up; [3] ms for which it holds
--
-- Returns whether it was ours.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
