-- Ends a reservation, once.
--
-- ARGV[2..5]  reservation id, tokens and nanodollars spent, requests counted (1, or 0 to give the request back)
-- ARGV[6]     the record of the call, or ''
--
-- Returns 1, or 0 when no such reservation is open (any more). One that expired and is settled after all, because
-- its gateway could not be heard, is charged what it came to, of what its limits still hold for it; its record
-- takes the place of the one that was told, and the ledger has what that record says.

local id, record = ARGV[2], ARGV[6]
local spent = {tokens = tonumber(ARGV[3]), nanodollars = tonumber(ARGV[4]), requests = tonumber(ARGV[5])}
local raw = call('HGET', open_key, id)
if raw then
  local _, limits = close(id, raw, spent, record)
  correct_all(limits, spent)
  return 1
end

local was = call('HGET', open_key, id .. ':was')
if not was then
  return 0
end
local ledger, tokens, nanodollars, limits, told = unpack(cmsgpack.unpack(was))
correct_all(limits, {requests = 1, tokens = spent.tokens, nanodollars = spent.nanodollars})
add_spent(ledger, spent.tokens - tokens, spent.nanodollars - nanodollars)
tell(record, told)
call('HDEL', open_key, id .. ':was')
call('ZREM', expiry_key, id)
return 1
