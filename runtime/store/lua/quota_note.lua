-- Notes that a tenant makes calls, before its first reservation: what looks after all tenants starts here.
--
-- KEYS[1]  tenants with reservations that may have to be settled: sorted set by when to look, in Unix ms
-- KEYS[2]  the same tenants, by when they were noted last
-- KEYS[3]  tenants that may have records to be folded, by when they were noted last
-- ARGV[1]  the time as Unix ms, '' for the server's; [2] the tenant; [3] ms until its next reservation may expire

local now = server_ms()
redis.call('ZADD', KEYS[1], 'LT', now + tonumber(ARGV[3]), ARGV[2])
redis.call('ZADD', KEYS[2], 'GT', now, ARGV[2])
redis.call('ZADD', KEYS[3], 'GT', now, ARGV[2])
return now
