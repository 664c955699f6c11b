-- Takes the lease of a run with the next token.
--
-- ARGV[5] claim, as in journal_begin; [6] new deadline, or '' where only a run that goes on is wanted
--
-- Returns {'ok', token, number, events, their bytes, packed request, digest of the plan, deadline}, or
-- {'unknown' or 'held' or what the run is}.

local found = call('HMGET', run, 'number', 'state', 'expires', 'claim', 'staged')
local number, state = tonumber(found[1] or 0), found[2]
if number == 0 then
  return {'unknown'}
end
if found[4] ~= ARGV[5] then
  if state == 'running' and tonumber(found[3]) > now then
    return {'held'}
  end
  if state ~= 'running' and (ARGV[6] == '' or state == 'succeeded') then
    return {state}
  end
  call('HINCRBY', run, 'token', 1)
  call('HSET', run, 'claim', ARGV[5], 'state', 'running', 'expires', now + lease_ms,
    'number', math.max(number, tonumber(found[5])))
  if ARGV[6] ~= '' then
    call('HSET', run, 'deadline', ARGV[6])
  end
  -- What the one before had begun to append, and nobody has seen. Its numbers are not used again.
  for _, entry in ipairs(call('XRANGE', KEYS[4], '(' .. found[1] .. '-0', '+')) do
    call('XDEL', KEYS[4], entry[1])
  end
  call('ZREM', KEYS[7], run_id)
  call('ZADD', KEYS[6], now, run_id)
  keep()
end
return {'ok', unpack(call('HMGET', run, 'token', 'number', 'events', 'event_bytes', 'request', 'plan', 'deadline'))}
