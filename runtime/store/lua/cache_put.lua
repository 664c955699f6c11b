-- Keeps a result, and drops others of the tenant where there are too many: what would expire first goes first.
--
-- KEYS[1]  the result (string); KEYS[2]  sizes (hash: digest -> bytes, and `all`); KEYS[3]  due (sorted set of
--          digests by when they expire, in ms); KEYS[4]  who makes it (string: the word of a claim)
-- ARGV[1]  digest; [2] packed result; [3] how long to keep it in ms; [4] most results; [5] most bytes of all;
-- [6]      what the keys of results begin with. They share the tenant's hash tag.
-- [7]      the word of our claim, which ends with this; '' where there is none
--
-- Returns whether it is kept: not where the claim has become another's, or another has kept a result by it.

local EXPIRED_AT_ONCE = 100
local sizes, due, claim = KEYS[2], KEYS[3], KEYS[4]
local digest, prefix, word = ARGV[1], ARGV[6], ARGV[7]
local ttl, most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if word ~= '' then
  local held = redis.call('GET', claim)
  if held == word then
    redis.call('DEL', claim)
  elseif held or redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
  end
end

local function drop(each)
  local size = redis.call('HGET', sizes, each)
  if size then
    redis.call('HINCRBY', sizes, 'all', '-' .. size)
    redis.call('HDEL', sizes, each)
  end
  redis.call('ZREM', due, each)
  redis.call('DEL', prefix .. each)
end

drop(digest)
for _, each in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, EXPIRED_AT_ONCE)) do
  drop(each)
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ttl)
redis.call('HSET', sizes, digest, #ARGV[2])
redis.call('HINCRBY', sizes, 'all', #ARGV[2])
redis.call('ZADD', due, now + ttl, digest)
while redis.call('ZCARD', due) > most or tonumber(redis.call('HGET', sizes, 'all')) > most_bytes do
  drop(redis.call('ZRANGE', due, 0, 0)[1])
end
for _, key in ipairs({sizes, due}) do
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl)
  end
end
return 1
