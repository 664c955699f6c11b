-- Lets the oldest entries of an audit log go, if it still begins where it did.
--
-- KEYS[1]  the log (stream; ids SEQUENCE-0); KEYS[2]  where it begins (hash: sequence, mac, seal)
-- ARGV[1]  number of the last entry let go before, '' for none; [2] of the last one to go; [3] its MAC; [4] seal
-- Returns 1, or 0 where somebody else was faster.

if (redis.call('HGET', KEYS[2], 'sequence') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], 'sequence', ARGV[2], 'mac', ARGV[3], 'seal', ARGV[4])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2] .. '-1')
return 1
