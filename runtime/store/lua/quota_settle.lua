-- Ends a reservation, once.
--
-- ARGV[2..5]  reservation id, tokens and nanodollars spent, requests counted (1, or 0 to give the request back)
-- ARGV[6]     the record of the call, or ''
--
-- Returns 1, or 0 when no such reservation is open (any more). One that expired and is settled after all, because
-- its gateway could not be heard, is charged what it had not been charged yet; its record takes the place of
-- the one that was told.

local id, record = ARGV[2], ARGV[6]
local spent = {tokens = tonumber(ARGV[3]), nanodollars = tonumber(ARGV[4]), requests = tonumber(ARGV[5])}
local raw = call('HGET', open_key, id)
if raw then
  close(id, raw, spent, record)
  return 1
end

local was = call('HGET', open_key, id .. ':was')
if not was then
  return 0
end
local ledger, tokens, nanodollars, limits, told = unpack(cmsgpack.unpack(was))
local more = {
  requests = 0, tokens = math.max(0, spent.tokens - tokens), nanodollars = math.max(0, spent.nanodollars - nanodollars),
}
for _, limit in ipairs(limits) do
  local amount = more[UNIT[limit[2]]]
  if amount > 0 then
    charge(limit[1], limit[2], amount)
  end
end
add(ledger, {'tokens', more.tokens, 'nanodollars', more.nanodollars})
tell(record, told)
call('HDEL', open_key, id .. ':was')
call('ZREM', expiry_key, id)
return 1
