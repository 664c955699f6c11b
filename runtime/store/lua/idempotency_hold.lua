-- Holds on to a claim of an idempotency key, or gives it up. Returns whether it still was the owner's.
--
-- KEYS[1]  the key; ARGV[1] owner; [2] ms from now on, 0 to give it up

if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
