-- What the quota scripts share. Prepended to each of them, after clock and quota_calendar.
--
-- KEYS[1]  open reservations of the tenant: hash. 'ID' is what is open, 'ID:seen' what it had come to when it
--          was last renewed, 'ID:was' what one that expired was charged, and what its limits still hold for it
-- KEYS[2]  when they expire, and when those that have are forgotten: sorted set of reservation id by Unix ms. It
--          is empty when the hash is, so the two are kept for the same time
-- KEYS[3]  records of the calls that have ended: stream, field 'record', and 'before' where it takes the place
--          of an earlier one; its oldest go when it is full
-- ARGV[1]  the time as Unix ms; '' in production, where the server's clock counts
--
-- A limit is of a kind, and has a key for what is taken of it:
--   'r', 't'  requests and tokens in any 60 s: a sliding window, packed,
--             {v = greatest virtual ms seen, off = virtual - server ms, gen = ms of creation, b = {[bucket] = amount}}
--   'd', 'm'  tokens of a day, nanodollars of a month: packed {period, amount}
--   'c'       requests at the same time: how many are open
-- Virtual time follows the server's clock and stands still when that steps back, so no amount ever leaves a
-- window early; a day or month that has begun never ends by such a step. The 60 s are cut into BUCKETS buckets;
-- an amount counts for BUCKETS + 1 of them, so it stays between 60 and 65 s: in no 60 s can more than the limit
-- be admitted. All numbers stay far below 2^53, where doubles lose integers: Python sees to it.
--
-- What is open is {ledger key, tokens, nanodollars, output tokens granted, limits, record}, each limit a
-- {key, kind, amount, bucket or period, gen}. The record is what the stream is told if the call expires, or ''.

local call, pack = redis.call, cmsgpack.pack
local SPAN, BUCKETS = 60 * 1000, 12
local WIDTH = SPAN / BUCKETS
local KEEP_MS = 35 * 24 * 3600 * 1000
local REMEMBER_MS = 600 * 1000
local MOST_RECORDS = 250000 -- hours of calls, should nobody fold them

local open_key, expiry_key, stream_key = KEYS[1], KEYS[2], KEYS[3]

local now = server_ms()

-- Refreshing a time to live is a write to the append-only file: only when half of it is gone. `other` is of the
-- same age.
local function keep(key, other)
  if call('PTTL', key) < KEEP_MS / 2 then
    call('PEXPIRE', key, KEEP_MS)
    if other then
      call('PEXPIRE', other, KEEP_MS)
    end
  end
end

-- The sliding window as of now, its bucket, and what is taken of it. Buckets that are over are dropped.
local function load_window(key)
  local raw = call('GET', key)
  local w
  if raw then
    w = cmsgpack.unpack(raw)
    local v = now + w.off
    if v < w.v then
      w.off = w.v - now
      call('SET', key, pack(w), 'KEEPTTL')
    else
      w.v = v
    end
  else
    w = {v = now, off = 0, gen = now, b = {}}
  end
  local current = math.floor(w.v / WIDTH)
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

local function save_window(key, w)
  call('SET', key, pack(w), 'PX', SPAN + 2 * WIDTH)
end

-- The day or month as of now, and what is taken of it.
local function load_period(key, kind)
  local period, taken = period_at(kind, now), 0
  local raw = call('GET', key)
  if raw then
    local kept = cmsgpack.unpack(raw)
    if kept[1] >= period then
      period, taken = kept[1], kept[2]
    end
  end
  return period, taken
end

local function save_period(key, kind, period, taken)
  call('SET', key, pack({period, taken}), 'PX', math.max(0, end_of(kind, period) - now) + DAY_MS)
end

local function change_gauge(key, by)
  local taken = math.max(0, tonumber(call('GET', key) or 0) + by)
  if taken == 0 then
    call('DEL', key)
  else
    call('SET', key, string.format('%.0f', taken), 'PX', KEEP_MS)
  end
end

-- Charges `amount` to a limit at this moment, whatever is left of it.
local function charge(key, kind, amount)
  if kind == 'r' or kind == 't' then
    local w, current = load_window(key)
    w.b[current] = (w.b[current] or 0) + amount
    save_window(key, w)
  elseif kind ~= 'c' then
    local period, taken = load_period(key, kind)
    save_period(key, kind, period, taken + amount)
  end
end

-- What was held becomes what was used. Less goes back to the time it was taken from, if that still counts; more
-- is charged now.
local function correct(limit, final)
  local key, kind, amount, at, gen = unpack(limit)
  if kind == 'c' then
    change_gauge(key, -1)
  elseif final > amount then
    charge(key, kind, final - amount)
  elseif final < amount and kind ~= 'd' and kind ~= 'm' then
    local w = load_window(key)
    if w.gen == gen and w.b[at] then
      w.b[at] = w.b[at] - (amount - final)
      save_window(key, w)
    end
  elseif final < amount then
    local period, taken = load_period(key, kind)
    if period == at then
      save_period(key, kind, period, math.max(0, taken - (amount - final)))
    end
  end
end

local UNIT = {r = 'requests', t = 'tokens', d = 'tokens', m = 'nanodollars', c = 'requests'}

local function tell(record, before)
  if record == '' then
    return
  elseif before and before ~= '' then
    call('XADD', stream_key, 'MAXLEN', '~', MOST_RECORDS, '*', 'record', record, 'before', before)
  else
    call('XADD', stream_key, 'MAXLEN', '~', MOST_RECORDS, '*', 'record', record)
  end
  keep(stream_key)
end

-- Only what is not 0: the negative of 0 is '-0' in Lua, no integer to the store. Nor is '1e+08', as it writes
-- numbers that are large and round.
local function add(ledger, field, change)
  if change ~= 0 then
    call('HINCRBY', ledger, field, math.abs(change) < 10 ^ 7 and change or string.format('%.0f', change))
  end
end

local function add_spent(ledger, tokens, nanodollars)
  add(ledger, 'tokens', tokens)
  add(ledger, 'nanodollars', nanodollars)
end

-- What is held for reservations that have ended becomes what they used.
local function correct_all(limits, spent)
  for _, limit in ipairs(limits) do
    correct(limit, spent[UNIT[limit[2]]])
  end
end

-- Ends the open reservation `id`, of which `spent` is {tokens, nanodollars, requests (0 or 1)}. `record` is what
-- the stream is told; where it is nil, what the reservation carries. Returns its ledger, its limits, which are to
-- be corrected, and the record it carried.
local function close(id, raw, spent, record)
  local ledger, _, _, _, limits, carried = unpack(cmsgpack.unpack(raw))
  call('HDEL', open_key, id, id .. ':seen')
  call('ZREM', expiry_key, id)
  add(ledger, 'requests', spent.requests - 1)
  add_spent(ledger, spent.tokens, spent.nanodollars)
  tell(record or carried)
  return ledger, limits, carried
end
