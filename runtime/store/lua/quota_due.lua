-- Ends the reservations of a tenant whose gateway did not come back: each is charged its request, and what was
-- seen of it. Those that ended so long ago that nobody will settle them any more are forgotten.
--
-- ARGV[2]  most to look at
--
-- Returns {how many it ended, when to look again in Unix ms, 0 for never}.

local ids = call('ZRANGEBYSCORE', expiry_key, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local ended = 0
for _, id in ipairs(ids) do
  local raw = call('HGET', open_key, id)
  if raw then
    local seen = call('HGET', open_key, id .. ':seen')
    local tokens, nanodollars, record = 0, 0, nil
    if seen then
      tokens, nanodollars, record = unpack(cmsgpack.unpack(seen))
      record = record ~= '' and record or nil
    end
    local spent = {tokens = tokens, nanodollars = nanodollars, requests = 1}
    local ledger, limits, carried = close(id, raw, spent, record)
    call('HINCRBY', ledger, 'expired', 1)
    call('HSET', open_key, id .. ':was', pack({ledger, tokens, nanodollars, limits, record or carried}))
    call('ZADD', expiry_key, now + REMEMBER_MS, id)
    ended = ended + 1
  else
    call('HDEL', open_key, id .. ':was')
    call('ZREM', expiry_key, id)
  end
end
local first = call('ZRANGE', expiry_key, 0, 0, 'WITHSCORES')
return {ended, tonumber(first[2] or 0)}
