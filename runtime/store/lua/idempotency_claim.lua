-- Claims an idempotency key for one request, or tells what became of the request that has it.
--
-- KEYS[1]  the key (hash: print, owner while it is answered, answer)
-- ARGV[1]  fingerprint of the request; [2] owner; [3] ms after which a claim that is not renewed is void
--
-- Returns 'claimed', 'busy', 'other' (the key came with another request), or {answer}, empty if it was not kept.

local print, owner, answer = unpack(redis.call('HMGET', KEYS[1], 'print', 'owner', 'answer'))
if not print then
  redis.call('HSET', KEYS[1], 'print', ARGV[1], 'owner', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 'claimed'
end
if print ~= ARGV[1] then
  return 'other'
end
if owner then
  return 'busy'
end
return {answer or ''}
