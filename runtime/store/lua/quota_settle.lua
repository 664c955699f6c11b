-- Ends a reservation, once.
--
-- ARGV[2..5]  reservation id, tokens used, requests counted (1, or 0 to give the request back), the record of
--             the call or ''
--
-- Returns 1, or 0 when no such reservation is open (any more).

local raw = call('HGET', open_key, ARGV[2])
if raw then
  close(ARGV[2], raw, tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5])
end
reap()
return raw and 1 or 0
