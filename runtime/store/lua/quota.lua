-- What the quota scripts share. Prepended to each of them.
--
-- KEYS[1]  open reservations of the tenant: hash of reservation id -> packed record
-- KEYS[2]  when they expire: sorted set of reservation id by Unix ms
-- KEYS[3]  records of the calls that have ended: stream, field 'record'; its oldest go when it is full
-- ARGV[1]  the time as Unix ms; '' in production, where the server's clock counts
--
-- A limit has a *window*: a string that holds, packed,
--     {v = greatest virtual ms seen, off = virtual - server ms, gen = ms of creation, b = {[bucket] = amount}}
-- Virtual time follows the server's clock and stands still when that steps back, so no amount ever leaves a
-- window early. A window of W ms is cut into BUCKETS buckets; an amount counts for BUCKETS + 1 of them, so it
-- stays between W and W + W/BUCKETS: in no interval of W ms can more than the limit be admitted.
--
-- What is open is {ledger key, tokens, {{window key, W, amount, unit, bucket, gen}, ...}, record}, unit 'r' or
-- 't'; the record is what the stream is told of the call if it expires, or ''.

local call = redis.call
local BUCKETS = 12
local KEEP_MS = 35 * 24 * 3600 * 1000
local REAP_PER_CALL = 16
local MOST_RECORDS = 250000 -- hours of calls, should nobody fold them

local open_key, expiry_key, stream_key = KEYS[1], KEYS[2], KEYS[3]

local now = server_ms()

-- Refreshing a time to live is a write to the append-only file: only when half of it is gone.
local function keep(key)
  if call('PTTL', key) < KEEP_MS / 2 then
    call('PEXPIRE', key, KEEP_MS)
  end
end

local function width(span)
  return math.ceil(span / BUCKETS)
end

-- The window as of now, and what is taken of it. Buckets that are over are dropped.
local function load_window(key, span)
  local raw = call('GET', key)
  local w
  if raw then
    w = cmsgpack.unpack(raw)
    local v = now + w.off
    if v < w.v then
      w.off = w.v - now
      call('SET', key, cmsgpack.pack(w), 'KEEPTTL')
    else
      w.v = v
    end
  else
    w = {v = now, off = 0, gen = now, b = {}}
  end
  local current = math.floor(w.v / width(span))
  local taken = 0
  for bucket, amount in pairs(w.b) do
    if bucket < current - BUCKETS then
      w.b[bucket] = nil
    else
      taken = taken + amount
    end
  end
  return w, current, taken
end

local function save_window(key, span, w)
  call('SET', key, cmsgpack.pack(w), 'PX', span + 2 * width(span))
end

-- ms until `excess` has left the window.
local function wait_for(w, span, excess)
  local buckets = {}
  for bucket in pairs(w.b) do
    buckets[#buckets + 1] = bucket
  end
  table.sort(buckets)
  for _, bucket in ipairs(buckets) do
    excess = excess - w.b[bucket]
    if excess <= 0 then
      return (bucket + BUCKETS + 1) * width(span) - w.v
    end
  end
  return 0
end

-- ms until nothing is taken of the window.
local function wait_for_all(w, span)
  local newest
  for bucket, amount in pairs(w.b) do
    if amount > 0 and (not newest or bucket > newest) then
      newest = bucket
    end
  end
  return newest and (newest + BUCKETS + 1) * width(span) - w.v or 0
end

-- What was held becomes what was used. Less goes back to the bucket it was taken from, if that still
-- counts; more is charged now.
local function correct(limit, final)
  local key, span, amount, bucket, gen = limit[1], limit[2], limit[3], limit[5], limit[6]
  if final == amount then
    return
  end
  local w, current = load_window(key, span)
  if final > amount then
    w.b[current] = (w.b[current] or 0) + final - amount
  elseif w.gen == gen and w.b[bucket] then
    w.b[bucket] = w.b[bucket] - (amount - final)
  end
  save_window(key, span, w)
end

-- Ends the open reservation `id` with `tokens` used and `requests` (0 or 1) counted. `record` is what the
-- stream is told; where it is nil, what the reservation carries.
local function close(id, raw, tokens, requests, record)
  local ledger, held, limits, carried = unpack(cmsgpack.unpack(raw))
  call('HDEL', open_key, id)
  call('ZREM', expiry_key, id)
  for _, limit in ipairs(limits) do
    correct(limit, limit[4] == 't' and tokens or requests)
  end
  call('HINCRBY', ledger, 'open', -1)
  if held > 0 then -- the negative of 0 is '-0' in Lua, no integer to the store
    call('HINCRBY', ledger, 'reserved', -held)
  end
  if requests == 0 then
    call('HINCRBY', ledger, 'requests', -1)
  end
  if tokens > 0 then
    call('HINCRBY', ledger, 'tokens', tokens)
  end
  keep(ledger)
  record = record or carried
  if record ~= '' then
    call('XADD', stream_key, 'MAXLEN', '~', MOST_RECORDS, '*', 'record', record)
    keep(stream_key)
  end
  return ledger
end

-- Ends reservations whose gateway did not come back: a request counts, no token was observed.
local function reap()
  local ids = call('ZRANGEBYSCORE', expiry_key, '-inf', now, 'LIMIT', 0, REAP_PER_CALL)
  for _, id in ipairs(ids) do
    local raw = call('HGET', open_key, id)
    if raw then
      call('HINCRBY', close(id, raw, 0, 1), 'expired', 1)
    else
      call('ZREM', expiry_key, id)
    end
  end
  return #ids
end
