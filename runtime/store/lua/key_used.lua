-- Notes that the API key KEYS[1] was used at ARGV[1], unless that was noted in the ARGV[2] s before; both in
-- seconds. A key that is gone meanwhile stays gone.

local used = redis.call('HMGET', KEYS[1], 'record', 'used')
if used[1] and tonumber(used[2] or 0) <= tonumber(ARGV[1]) - tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'used', ARGV[1])
end
return 1
