-- Corrects hints that proved wrong, but those that somebody has changed since.
--
-- KEYS as in leases_put; ARGV triples: member, end as it was found, true end or '' to remove it

for i = 1, #ARGV, 3 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    if ARGV[i + 2] == '' then
      redis.call('ZREM', KEYS[1], ARGV[i])
    else
      redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
    end
  end
end
