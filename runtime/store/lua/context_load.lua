-- A context as of one moment: {version, packed details, packed turns}.
--
-- KEYS[1]  document (hash: version, details, bytes of turns); KEYS[2]  turns (list)

local document = redis.call('HMGET', KEYS[1], 'version', 'details')
return {document[1], document[2], redis.call('LRANGE', KEYS[2], 0, -1)}
