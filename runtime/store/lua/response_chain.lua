-- The turns of a conversation: of a response, the one before it, and so on to the first. Each then counts as
-- used now. {1, {id, model, turns}, ...}, the newest first, or {0, id} of one that is gone, or {-1} where
-- there are more than may be.
--
-- KEYS[1]  all responses ('ID BYTES' by when they were last used, ms); KEYS[2] the bytes of these together
-- ARGV[1]  id; [2] ms to keep them; [3] most of them; [4] most bytes; [5] a key without its id

local call = redis.call
local index, bytes = unpack(KEYS)
local id, keep, prefix = ARGV[1], tonumber(ARGV[2]), ARGV[5]
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found, sizes, sum = {1}, {}, 0
while id ~= '' do
  local held = call('HMGET', prefix .. id, 'previous', 'model', 'turns', 'size')
  if not held[3] then
    return {0, id}
  end
  sum = sum + held[4]
  if #found > most or sum > most_bytes then
    return {-1}
  end
  found[#found + 1] = {id, held[2], held[3]}
  sizes[#sizes + 1] = held[4]
  id = held[1]
end
for i, size in ipairs(sizes) do
  local of = found[i + 1][1]
  call('PEXPIRE', prefix .. of, keep)
  call('ZADD', index, 'XX', now, of .. ' ' .. size)
end
call('PEXPIRE', index, keep)
call('PEXPIRE', bytes, keep)
return found
