-- Gives a lease back, if it is still ours. Returns whether it was.
--
-- ARGV[5] token

local found = call('HMGET', run, 'token', 'state')
if found[1] ~= ARGV[5] or found[2] ~= 'running' then
  return 0
end
call('HSET', run, 'expires', 0)
return 1
