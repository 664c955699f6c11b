-- Ends the reservations of a tenant whose gateway did not come back: each is charged its request, and what was
-- seen of it. Its limits go on to hold all that it had reserved, but its place among those that run: the gateway
-- may live, cut off from the store, and the call may have used it. Those that ended so long ago that nobody will
-- settle them any more are forgotten, and their limits get back what was not seen to be used.
--
-- ARGV[2]  most to look at
--
-- Returns {how many it ended, when to look again in Unix ms, 0 for never}.

local function held_on(limits)
  local held = {}
  for _, limit in ipairs(limits) do
    if limit[2] == 'c' then
      correct(limit, 0)
    else
      held[#held + 1] = limit
    end
  end
  return held
end

local function expire(id, raw)
  local seen = call('HGET', open_key, id .. ':seen')
  local tokens, nanodollars, record = 0, 0, nil
  if seen then
    tokens, nanodollars, record = unpack(cmsgpack.unpack(seen))
    record = record ~= '' and record or nil
  end
  local spent = {tokens = tokens, nanodollars = nanodollars, requests = 1}
  local ledger, limits, carried = close(id, raw, spent, record)
  add(ledger, 'expired', 1)
  call('HSET', open_key, id .. ':was', pack({ledger, tokens, nanodollars, held_on(limits), record or carried}))
  call('ZADD', expiry_key, now + REMEMBER_MS, id)
  keep(open_key, expiry_key)
end

local function forget(id)
  local was = call('HGET', open_key, id .. ':was')
  if was then
    local _, tokens, nanodollars, limits = unpack(cmsgpack.unpack(was))
    correct_all(limits, {tokens = tokens, nanodollars = nanodollars, requests = 1})
    call('HDEL', open_key, id .. ':was')
  end
  call('ZREM', expiry_key, id)
end

local ids = call('ZRANGEBYSCORE', expiry_key, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local ended = 0
for _, id in ipairs(ids) do
  local raw = call('HGET', open_key, id)
  if raw then
    expire(id, raw)
    ended = ended + 1
  else
    forget(id)
  end
end
local first = call('ZRANGE', expiry_key, 0, 0, 'WITHSCORES')
return {ended, tonumber(first[2] or 0)}
