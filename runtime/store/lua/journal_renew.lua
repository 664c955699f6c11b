-- Holds on to a lease. Returns whether it is still ours.
--
-- ARGV[5] token

local found = call('HMGET', run, 'token', 'state')
if found[1] ~= ARGV[5] or found[2] ~= 'running' then
  return 0
end
call('HSET', run, 'expires', now + lease_ms)
keep()
return 1
