-- Keeps the answer to a request under its idempotency key, within the bounds of the tenant. Returns whether the
-- claim still was the owner's.
--
-- KEYS[1]  the key; KEYS[2] all keys with answers (sorted set: 'NAME' by ms); KEYS[3] those whose answer is
--          still there ('NAME BYTES' by ms); KEYS[4] the bytes of these together
-- ARGV[1]  owner; [2] answer, empty if it is too large; [3] name; [4] ms to keep it; [5] most keys;
--          [6] most bytes; [7] a key without its name
--
-- Beyond the most bytes the oldest answers are let go, and their keys stay. Beyond the most keys these go too.

local call = redis.call
local claim, names, answers, bytes = unpack(KEYS)
local answer, name, keep, prefix = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[7]
local most, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])

if call('HGET', claim, 'owner') ~= ARGV[1] then
  return 0
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function let_go(member)
  local of, size = string.match(member, '^(%S+) (%d+)$')
  call('ZREM', answers, member)
  call('DECRBY', bytes, size)
  call('HDEL', prefix .. of, 'answer')
end

call('HDEL', claim, 'owner')
call('HSET', claim, 'answer', answer)
call('PEXPIRE', claim, keep)
call('ZADD', names, now, name)
if #answer > 0 then
  call('ZADD', answers, now, name .. ' ' .. #answer)
  call('INCRBY', bytes, #answer)
end

for _, member in ipairs(call('ZRANGEBYSCORE', answers, '-inf', now - keep, 'LIMIT', 0, 64)) do
  let_go(member)
end
call('ZREMRANGEBYSCORE', names, '-inf', now - keep)
while tonumber(call('GET', bytes) or 0) > most_bytes and call('ZCARD', answers) > 0 do
  let_go(call('ZRANGE', answers, 0, 0)[1])
end
local beyond = call('ZCARD', names) - most
if beyond > 0 then
  local oldest = call('ZPOPMIN', names, beyond)
  for i = 1, #oldest, 2 do
    call('DEL', prefix .. oldest[i])
  end
end
for _, key in ipairs({names, answers, bytes}) do
  call('PEXPIRE', key, keep)
end
return 1
