-- Adds an entry to an audit log, if the log still ends as it did when the entry was made.
--
-- KEYS[1]  the log (stream: entry, mac; ids SEQUENCE-0); KEYS[2]  its head (hash: sequence, mac, seal)
-- ARGV[1]  MAC that the entry binds, '' for the first; [2] its sequence; [3] packed entry; [4] MAC; [5] seal
-- Returns {1}, or {0, sequence, mac, seal} where somebody else was faster, or {-1} where log and head disagree.

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local head = redis.call('HMGET', KEYS[2], 'sequence', 'mac', 'seal')
local ends = #last > 0 and last[1][1] or '0-0'

if ends ~= (head[1] or '0') .. '-0' then
  return {-1}
end
if (head[2] or '') ~= ARGV[1] then
  return {0, head[1] or '', head[2] or '', head[3] or ''}
end
redis.call('XADD', KEYS[1], ARGV[2] .. '-0', 'entry', ARGV[3], 'mac', ARGV[4])
redis.call('HSET', KEYS[2], 'sequence', ARGV[2], 'mac', ARGV[4], 'seal', ARGV[5])
return {1}
