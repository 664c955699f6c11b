-- What is left of limits: {remaining, ms to full}, a pair for each; -1 where nobody knows.
--
-- KEYS[4..]  one key for each limit; ARGV[2..] for each its kind and the most it admits

local reply = {}
for i = 1, #KEYS - 3 do
  local state = load(KEYS[i + 3], ARGV[2 * i], tonumber(ARGV[2 * i + 1]))
  reply[i] = {math.max(0, state.most - state.taken), to_full(state)}
end
return reply
