-- Notes when to look at tenants again, but at those that somebody has noted meanwhile for earlier.
--
-- KEYS[1..2]  as in quota_note; ARGV[2] ms after which a tenant that makes calls has been noted again
-- ARGV[3]     ms until a tenant without anything open is looked at again
-- ARGV[4..]   for each: the tenant, when it was to be looked at, when next, 0 where nothing is open

local now = server_ms()
for i = 4, #ARGV, 3 do
  local tenant, found, next = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if redis.call('ZSCORE', KEYS[1], tenant) == found then
    local seen = tonumber(redis.call('ZSCORE', KEYS[2], tenant) or 0)
    if seen > now - tonumber(ARGV[2]) then
      -- What it takes from now on is not noted at once, and may expire before what was found.
      local soon = now + tonumber(ARGV[3])
      redis.call('ZADD', KEYS[1], next > 0 and math.min(next, soon) or soon, tenant)
    elseif next > 0 then
      redis.call('ZADD', KEYS[1], next, tenant)
    else
      redis.call('ZREM', KEYS[1], tenant)
      redis.call('ZREM', KEYS[2], tenant)
    end
  end
end
