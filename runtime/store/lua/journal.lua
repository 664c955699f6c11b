-- What the scripts of journals share. Prepended to each of them.
--
-- KEYS[1]  the run (hash: request, plan, state, token, expires, number, staged, claim, events, event_bytes, deadline)
-- KEYS[2]  its checkpoints (hash: path -> packed); KEYS[3] its large values (hash: digest -> packed)
-- KEYS[4]  its events (stream: id 'N-0' -> those up to number N); KEYS[5] its plan
-- KEYS[6]  the tenant's runs that go on (sorted set by when they began); KEYS[7] those that ended, by when
-- ARGV[1]  the time as Unix ms; '' in production, where the server's clock counts
-- ARGV[2]  id of the run; [3] how long the lease holds in ms; [4] how long to keep everything in ms
--
-- `number` is that of the last event that can be seen, `staged` that of the last one that is written: a large
-- append comes in parts, and the last of them makes all be seen. A run is unseen until it has an event.

local call = redis.call
local run = KEYS[1]
local run_id, lease_ms, keep_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local now = server_ms()

-- Refreshing a time to live is a write to the append-only file: only when a tenth of it is gone.
local function keep()
  for i = 1, 7 do
    local left = call('PTTL', KEYS[i])
    if left ~= -2 and left < 0.9 * keep_ms then
      call('PEXPIRE', KEYS[i], keep_ms)
    end
  end
end
