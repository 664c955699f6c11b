-- Keeps an answer that may be asked for again, within the bounds of the tenant.
--
-- KEYS[1]  the response (hash); KEYS[2] all responses ('ID BYTES' by when they were last used, ms);
--          KEYS[3] the bytes of these together
-- ARGV[1]  id; [2] bytes; [3] ms to keep it; [4] most responses; [5] most bytes; [6] a key without its id;
--          [7...] field, value, ...
--
-- Beyond the bounds those go that were not used for longest.

local call = redis.call
local response, index, bytes = unpack(KEYS)
local id, size, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most, most_bytes, prefix = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(member)
  local of, held = string.match(member, '^(%S+) (%d+)$')
  call('ZREM', index, member)
  call('DECRBY', bytes, held)
  call('DEL', prefix .. of)
end

call('HSET', response, 'size', size, unpack(ARGV, 7))
call('PEXPIRE', response, keep)
call('ZADD', index, now, id .. ' ' .. size)
call('INCRBY', bytes, size)
for _, member in ipairs(call('ZRANGEBYSCORE', index, '-inf', now - keep, 'LIMIT', 0, 64)) do
  forget(member)
end
while call('ZCARD', index) > 1
  and (call('ZCARD', index) > most or tonumber(call('GET', bytes)) > most_bytes) do
  forget(call('ZRANGE', index, 0, 0)[1])
end
call('PEXPIRE', index, keep)
call('PEXPIRE', bytes, keep)
return 1
