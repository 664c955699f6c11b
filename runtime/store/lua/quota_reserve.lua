-- Takes a request and what it may come to from every limit, or from none.
--
-- KEYS[4]     the ledger; KEYS[5..] one key for each limit
-- ARGV[2..4]  reservation id, time to live in ms, the record of the call should it expire
-- ARGV[5..7]  tokens of the input, most and least tokens of the output: what is left is granted in between
-- ARGV[8..9]  nanodollars of all but the output, picodollars of a token of the output
-- ARGV[10..]  for each limit: its kind and the most it admits
--
-- Returns {admitted (0 or 1), tokens of the output, {remaining, ms to wait, ms to full}, ...}, a triple for each
-- limit. The tokens are those granted; of a call that is refused, those that would fit now, -1 where none do. To
-- wait is 0 for a limit that would have admitted the least, -1 for one that never will. To full is -1 where
-- nobody knows. The same id again while its reservation is open: the first one stands.

local id, ttl, record = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local input, most_output, least_output = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local fixed_cost, output_price = tonumber(ARGV[8]), tonumber(ARGV[9])
local ledger = KEYS[4]
local GAUGE_WAIT = 1000 -- ms; nobody knows when a call that is running will end
local MOST_COST = 8 * 10 ^ 12 -- nanodollars of any output: Python refuses more

local function cost(output)
  return fixed_cost + math.ceil(output * output_price / 1000)
end

local function amount_of(kind, output)
  if kind == 'm' then
    return cost(output)
  end
  return (kind == 't' or kind == 'd') and input + output or 1
end

-- The most output of which `left` holds the whole call; below 0 where it does not even hold the rest.
local function fitting(kind, left)
  if kind == 'm' then
    local money = left - fixed_cost
    if money < 0 or output_price == 0 then
      return money < 0 and -1 or most_output
    end
    return math.floor(math.min(money, MOST_COST) * 1000 / output_price)
  end
  return (kind == 't' or kind == 'd') and left - input or (left > 0 and most_output or -1)
end

-- ms until `excess` has left a sliding window.
local function wait_for(w, excess)
  local buckets = {}
  for bucket in pairs(w.b) do
    buckets[#buckets + 1] = bucket
  end
  table.sort(buckets)
  for _, bucket in ipairs(buckets) do
    excess = excess - w.b[bucket]
    if excess <= 0 then
      return (bucket + BUCKETS + 1) * WIDTH - w.v
    end
  end
  return 0
end

local function wait_of(state, least)
  local excess = state.taken + least - state.most
  if least > state.most then
    return -1
  elseif excess <= 0 then
    return 0
  elseif state.kind == 'c' then
    return GAUGE_WAIT
  end
  return state.window and wait_for(state.window, excess) or end_of(state.kind, state.at) - now
end

local function take(state, amount)
  state.taken = state.taken + amount
  if state.kind == 'c' then
    change_gauge(state.key, 1)
  elseif state.window then
    local b = state.window.b
    b[state.at] = (b[state.at] or 0) + amount
    save_window(state.key, state.window)
  else
    save_period(state.key, state.kind, state.at, state.taken)
  end
  return {state.key, state.kind, amount, state.at or 0, state.window and state.window.gen or 0}
end

local before = call('HGET', open_key, id)
local admitted, output = not before, most_output
local states, waits = {}, {}

for i = 1, #KEYS - 4 do
  local state = load(KEYS[i + 4], ARGV[2 * i + 8], tonumber(ARGV[2 * i + 9]))
  states[i], waits[i] = state, 0
  if not before then
    waits[i] = wait_of(state, amount_of(state.kind, least_output))
    admitted = admitted and waits[i] == 0
    output = math.min(output, fitting(state.kind, state.most - state.taken))
  end
end

if admitted then
  local limits = {}
  for i, state in ipairs(states) do
    limits[i] = take(state, amount_of(state.kind, output))
  end
  call('HSET', open_key, id, pack({ledger, input + output, cost(output), output, limits, record}))
  call('ZADD', expiry_key, now + ttl, id)
  add(ledger, 'requests', 1)
  keep(ledger)
  keep(open_key, expiry_key)
elseif before then
  output = cmsgpack.unpack(before)[4]
end

local reply = {(admitted or before) and 1 or 0, math.max(-1, output)}
for i, state in ipairs(states) do
  reply[i + 2] = {math.max(0, state.most - state.taken), waits[i], to_full(state)}
end
return reply
