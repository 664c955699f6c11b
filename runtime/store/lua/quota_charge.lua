-- Charges a call that was admitted while the store was out, once.
--
-- KEYS[4]    the ledger; KEYS[5..] one key for each limit
-- ARGV[2..5] reservation id, tokens and nanodollars spent, the record of the call or ''
-- ARGV[6..]  for each limit its kind
--
-- Returns 1, or 0 where it was charged already. If the reservation is open after all, because its request was
-- heard and only the reply was lost, it is settled.

local id, record = ARGV[2], ARGV[5]
local spent = {requests = 1, tokens = tonumber(ARGV[3]), nanodollars = tonumber(ARGV[4])}
local raw = call('HGET', open_key, id)
if raw then
  local _, limits = close(id, raw, spent, record)
  correct_all(limits, spent)
elseif call('HEXISTS', open_key, id .. ':was') == 1 then
  return 0
else
  for i = 5, #KEYS do
    charge(KEYS[i], ARGV[i + 1], spent[UNIT[ARGV[i + 1]]])
  end
  add(KEYS[4], 'requests', 1)
  add_spent(KEYS[4], spent.tokens, spent.nanodollars)
  keep(KEYS[4])
  tell(record)
end
call('HSET', open_key, id .. ':was', pack({KEYS[4], spent.tokens, spent.nanodollars, {}, record}))
call('ZADD', expiry_key, now + REMEMBER_MS, id)
keep(open_key, expiry_key)
return 1
