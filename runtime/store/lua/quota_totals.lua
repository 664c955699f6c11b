-- The ledger KEYS[4], expired reservations settled first: requests, open, reserved, tokens, expired.

local ROUNDS = 64

for _ = 1, ROUNDS do
  if reap() < REAP_PER_CALL then
    break
  end
end
local totals = call('HMGET', KEYS[4], 'requests', 'open', 'reserved', 'tokens', 'expired')
for i = 1, #totals do
  totals[i] = tonumber(totals[i] or 0)
end
return totals
