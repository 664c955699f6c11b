-- Begins a run, and takes its lease with the token 1.
--
-- ARGV[5] claim, another one for each call that is not a repetition; [6] packed request; [7] digest of the plan
-- ARGV[8] packed plan, or '' where it may be there already; [9] most runs of the tenant
-- ARGV[10] the key of a run without its id; [11] the names behind it of what else is kept, with blanks between
--
-- Returns 'ok', 'exists', 'full', or 'plan' where the packed plan is needed.

local GONE_PER_CALL = 16

local live, ended = KEYS[6], KEYS[7]
local most = tonumber(ARGV[9])

local function forget(id)
  call('DEL', ARGV[10] .. id)
  for name in string.gmatch(ARGV[11], '%S+') do
    call('DEL', ARGV[10] .. id .. ':' .. name)
  end
end

-- A run whose runner died before it said a word.
local function stillborn(id)
  local found = call('HMGET', ARGV[10] .. id, 'number', 'expires')
  return found[1] == '0' and tonumber(found[2]) <= now
end

if call('EXISTS', run) == 1 then
  if call('HGET', run, 'claim') == ARGV[5] then
    return 'ok'
  end
  if not stillborn(run_id) then
    return 'exists'
  end
  forget(run_id)
end
if ARGV[8] == '' and call('EXISTS', KEYS[5]) == 0 then
  return 'plan'
end

call('ZREMRANGEBYSCORE', ended, '-inf', now - keep_ms)
if call('ZCARD', live) + call('ZCARD', ended) >= most then
  for _, id in ipairs(call('ZRANGE', live, 0, GONE_PER_CALL - 1)) do
    if call('EXISTS', ARGV[10] .. id) == 0 or stillborn(id) then
      forget(id)
      call('ZREM', live, id)
    end
  end
end
while call('ZCARD', live) + call('ZCARD', ended) >= most do
  local oldest = call('ZPOPMIN', ended)
  if #oldest == 0 then
    return 'full'
  end
  forget(oldest[1])
end

if ARGV[8] ~= '' then
  call('SET', KEYS[5], ARGV[8])
end
call('HSET', run, 'claim', ARGV[5], 'request', ARGV[6], 'plan', ARGV[7], 'state', 'running', 'token', 1,
  'expires', now + lease_ms, 'number', 0, 'staged', 0, 'events', 0, 'event_bytes', 0)
call('ZADD', live, now, run_id)
keep()
return 'ok'
