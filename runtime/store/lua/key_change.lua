-- Sets the record of the API key KEYS[1] to ARGV[2] if it still is ARGV[1]. It is forgotten at ARGV[3], Unix ms,
-- or with "" never; a revoked one when it would have been. Returns 1, or 0 where somebody else was faster.

if (redis.call('HGET', KEYS[1], 'record') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'record', ARGV[2])
if redis.call('HEXISTS', KEYS[1], 'revoked') == 1 then
  return 1
end
if ARGV[3] == '' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
return 1
