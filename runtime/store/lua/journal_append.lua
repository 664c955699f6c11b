-- Writes a part of an append, if the token still is the newest.
--
-- ARGV[5] token; [6] number of the last event, or '' where more parts follow; [7] what the run is then
-- ARGV[8] events that are kept; [9] their bytes; [10] how many checkpoints go; [11] how many large values go
-- ARGV[12..] their paths and digests, then triples: 'v', digest, value; 'c', path, checkpoint; 'e', number, events
--
-- Returns 'ok', 'unknown' or 'lost'. The same part again changes nothing.

local FIRST = 12

local found = call('HMGET', run, 'token', 'state', 'number', 'staged')
if not found[1] then
  return 'unknown'
end
if found[1] ~= ARGV[5] then
  return 'lost'
end
if found[2] ~= 'running' then
  return found[3] == ARGV[6] and 'ok' or 'lost'
end

local staged = tonumber(found[4])
local paths, digests = tonumber(ARGV[10]), tonumber(ARGV[11])
local next = FIRST + paths + digests
for i = FIRST, FIRST + paths - 1 do
  call('HDEL', KEYS[2], ARGV[i])
end
for i = FIRST + paths, next - 1 do
  call('HDEL', KEYS[3], ARGV[i])
end
for i = next, #ARGV, 3 do
  local kind, name, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'v' then
    call('HSET', KEYS[3], name, value)
  elseif kind == 'c' then
    call('HSET', KEYS[2], name, value)
  elseif tonumber(name) > staged then
    call('XADD', KEYS[4], name .. '-0', 'events', value)
    staged = tonumber(name)
  end
end

local over = ARGV[7] ~= 'running'
call('HSET', run, 'staged', staged, 'expires', over and 0 or now + lease_ms)
if ARGV[6] ~= '' then
  call('HSET', run, 'number', ARGV[6], 'state', ARGV[7], 'events', ARGV[8], 'event_bytes', ARGV[9])
end
if ARGV[7] == 'succeeded' or ARGV[7] == 'failed' then
  call('ZREM', KEYS[6], run_id)
  call('ZADD', KEYS[7], now, run_id)
end
keep()
return 'ok'
