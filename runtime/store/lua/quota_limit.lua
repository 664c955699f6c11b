-- A limit as it stands now. Prepended to the scripts that read limits, after quota.

-- ms until nothing is taken of a sliding window.
local function wait_for_all(w)
  local newest
  for bucket, amount in pairs(w.b) do
    if amount > 0 and (not newest or bucket > newest) then
      newest = bucket
    end
  end
  return newest and (newest + BUCKETS + 1) * WIDTH - w.v or 0
end

local function load(key, kind, most)
  local state = {key = key, kind = kind, most = most}
  if kind == 'c' then
    state.taken = tonumber(call('GET', key) or 0)
  elseif kind == 'r' or kind == 't' then
    state.window, state.at, state.taken = load_window(key)
  else
    state.at, state.taken = load_period(key, kind)
  end
  return state
end

local function to_full(state)
  if state.kind == 'c' then
    return -1
  elseif state.window then
    return wait_for_all(state.window)
  end
  return state.taken > 0 and end_of(state.kind, state.at) - now or 0
end
