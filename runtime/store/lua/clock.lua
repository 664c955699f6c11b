-- The time as Unix ms: ARGV[1], or, where that is '' as in production, that of the server. Prepended to others.

local function server_ms()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
