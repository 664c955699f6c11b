-- Gives the API key KEYS[1] the digest ARGV[1] of a new secret; that of the old one counts until ARGV[2], Unix
-- seconds. Returns 0 if there is no such key or it is revoked.

local old = redis.call('HGET', KEYS[1], 'digest')
if not old or redis.call('HEXISTS', KEYS[1], 'revoked') == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'old_digest', old, 'old_until', ARGV[2])
return 1
