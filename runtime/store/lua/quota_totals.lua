-- The ledger of a key, and what it has open now.
--
-- KEYS[4]  the ledger
--
-- Returns {requests, open reservations, tokens that these hold, tokens, expired, nanodollars}.

local requests, tokens, expired, nanodollars =
  unpack(call('HMGET', KEYS[4], 'requests', 'tokens', 'expired', 'nanodollars'))
local open, reserved = 0, 0
local fields = call('HGETALL', open_key)
for i = 1, #fields, 2 do
  if not fields[i]:find(':', 1, true) then
    local reservation = cmsgpack.unpack(fields[i + 1])
    if reservation[1] == KEYS[4] then
      open, reserved = open + 1, reserved + reservation[2]
    end
  end
end
return {requests or 0, open, reserved, tokens or 0, expired or 0, nanodollars or 0}
