-- Sets the field ARGV[1] of the hash KEYS[1] to ARGV[3] if it still holds ARGV[2]; "" stands for nothing there.
-- Returns 1, or 0 where somebody else was faster.

local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
