-- Takes a request and its tokens from every limit, or from none.
--
-- KEYS[4]     the ledger; KEYS[5..] one window for each limit
-- ARGV[2..5]  reservation id, time to live in ms, tokens, the record of the call should it expire
-- ARGV[6..]   for each limit: the most it admits, its span in ms, its unit ('r' or 't')
--
-- Returns {admitted (0 or 1), {remaining, ms to wait, ms to full}, ...}, a triple for each limit. To wait is 0
-- for a limit that would have admitted the request, -1 for one that never will.
-- The same id again while its reservation is open: the first one stands.

reap()

local id, ttl, tokens = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local ledger = KEYS[4]
local known = call('HEXISTS', open_key, id) == 1
local admitted = not known
local windows, limits, states = {}, {}, {}

for i = 1, #KEYS - 4 do
  local key, most, span, unit = KEYS[i + 4], tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4]), ARGV[3 * i + 5]
  local amount = unit == 't' and tokens or 1
  local w, current, taken = load_window(key, span)
  local wait = 0
  if known then
    amount = 0
  elseif amount > most then
    wait, admitted = -1, false
  elseif taken + amount > most then
    wait, admitted = wait_for(w, span, taken + amount - most), false
  end
  windows[i] = w
  limits[i] = {key, span, amount, unit, current, w.gen}
  states[i] = {math.max(0, most - taken), wait}
end

for i, limit in ipairs(limits) do
  local span, amount, current, w = limit[2], limit[3], limit[5], windows[i]
  if admitted then
    w.b[current] = (w.b[current] or 0) + amount
    save_window(limit[1], span, w)
    states[i][1] = states[i][1] - amount
  end
  states[i][3] = wait_for_all(w, span)
end

if admitted then
  call('HSET', open_key, id, cmsgpack.pack({ledger, tokens, limits, ARGV[5]}))
  call('ZADD', expiry_key, now + ttl, id)
  call('HINCRBY', ledger, 'requests', 1)
  call('HINCRBY', ledger, 'open', 1)
  call('HINCRBY', ledger, 'reserved', tokens)
  keep(open_key)
  keep(expiry_key)
  keep(ledger)
end
return {(admitted or known) and 1 or 0, unpack(states)}
