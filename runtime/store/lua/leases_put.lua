-- Notes when leases end. Only a hint: the runs themselves know better.
--
-- KEYS[1]  leases of all tenants (sorted set: 'TENANT RUN_ID' by their end in Unix ms)
-- ARGV[1]  the time as Unix ms, '' for the server's; [2] how long they hold in ms; [3..] members

local now = server_ms()
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[i])
end
return now
