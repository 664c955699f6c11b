-- Forgets a response. Returns whether there was one.
--
-- KEYS[1]  the response (hash); KEYS[2] all responses ('ID BYTES'); KEYS[3] the bytes of these together
-- ARGV[1]  id

local size = redis.call('HGET', KEYS[1], 'size')
if not size then
  return 0
end
redis.call('DEL', KEYS[1])
if redis.call('ZREM', KEYS[2], ARGV[1] .. ' ' .. size) == 1 then
  redis.call('DECRBY', KEYS[3], size)
end
return 1
