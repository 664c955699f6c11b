-- Holds on to open reservations, and notes what they have come to so far.
--
-- ARGV[2]   ms that they live from now on
-- ARGV[3..] for each: its id, tokens and nanodollars so far, the record of the call should it expire
--
-- Returns for each 1, or 0 where it is not open any more.

local held = {}
for i = 3, #ARGV, 4 do
  local id = ARGV[i]
  local open = call('HEXISTS', open_key, id)
  if open == 1 then
    call('ZADD', expiry_key, now + tonumber(ARGV[2]), id)
    call('HSET', open_key, id .. ':seen', pack({tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]}))
  end
  held[#held + 1] = open
end
return held
