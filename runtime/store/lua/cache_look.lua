-- Gives a result, or claims the work of making it.
--
-- KEYS[1]  the result (string); KEYS[2]  who makes it (string: the word of a claim), of the same tenant
-- ARGV[1]  our word, another one for each claim; [2] ms after which a claim that is not renewed is void;
-- [3]      '1' to claim it although there is a result, as that is too old
--
-- Returns {result or nil, word}: whose the claim is, ours where it is now; '' where nobody needs to make it.

local kept = redis.call('GET', KEYS[1])
if kept and ARGV[3] ~= '1' then
  return {kept, ''}
end
local held = redis.call('GET', KEYS[2])
if not held then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return {kept, held or ARGV[1]}
