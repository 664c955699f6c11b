-- Takes a request and its tokens from every limit, or from none.
--
-- KEYS[3]     the ledger; KEYS[4..] one window for each limit
-- ARGV[2..4]  reservation id, time to live in ms, tokens
-- ARGV[5..]   for each limit: the most it admits, its span in ms, its unit ('r' or 't')
--
-- Returns {admitted (0 or 1), {remaining, ms to wait, ms to full}, ...}, a triple for each limit. To wait is 0
-- for a limit that would have admitted the request, -1 for one that never will.
-- The same id again while its reservation is open: the first one stands.

reap()

local id, ttl, tokens = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local ledger = KEYS[3]
local reply, windows, limits = {1}, {}, {}
local known = redis.call('HEXISTS', open_key, id) == 1

for i = 4, #KEYS do
  local most, span, unit = tonumber(ARGV[3 * i - 7]), tonumber(ARGV[3 * i - 6]), ARGV[3 * i - 5]
  local amount = unit == 't' and tokens or 1
  local w, current, taken = load_window(KEYS[i], span)
  local wait = 0
  if known then
    amount = 0
  elseif amount > most then
    wait = -1
  elseif taken + amount > most then
    wait = wait_for(w, span, taken + amount - most)
  end
  if wait ~= 0 then
    reply[1] = 0
  end
  windows[i] = w
  limits[i - 3] = {KEYS[i], span, amount, unit, current, w.gen}
  reply[i - 2] = {math.max(0, most - taken), wait, wait_for_all(w, span)}
end

if reply[1] == 0 or known then
  return reply
end

for i = 4, #KEYS do
  local span, amount, current, w = limits[i - 3][2], limits[i - 3][3], limits[i - 3][5], windows[i]
  w.b[current] = (w.b[current] or 0) + amount
  save_window(KEYS[i], span, w)
  reply[i - 2] = {reply[i - 2][1] - amount, 0, wait_for_all(w, span)}
end
redis.call('HSET', open_key, id, cmsgpack.pack({ledger, tokens, limits}))
redis.call('ZADD', expiry_key, now + ttl, id)
redis.call('HINCRBY', ledger, 'requests', 1)
redis.call('HINCRBY', ledger, 'open', 1)
redis.call('HINCRBY', ledger, 'reserved', tokens)
keep(open_key)
keep(expiry_key)
keep(ledger)
return reply
