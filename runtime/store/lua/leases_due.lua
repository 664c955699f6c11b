-- The leases that may have ended: {now in Unix ms, {member, end, ...}}.
--
-- KEYS and ARGV[1] as in leases_put; ARGV[2] most members

local now = server_ms()
return {now, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))}
