-- Marks the API key KEYS[1] revoked, and forgets it after ARGV[1] ms. Returns 0 if there is none.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'revoked', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
