-- Puts an audit log that is broken aside: KEYS[1] the log and KEYS[2] its head become KEYS[3] and KEYS[4].

for place = 1, 2 do
  if redis.call('EXISTS', KEYS[place]) == 1 then
    redis.call('RENAME', KEYS[place], KEYS[place + 2])
  end
end
