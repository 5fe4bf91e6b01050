-- The value of a key, to be written elsewhere.
--
-- KEYS 1 the key
-- ARGV 1 the greatest size, in bytes, as MEMORY USAGE tells it
--
-- Answers {payload, expiry in ms, as text} or, if it is bigger, {size}; nil for no key.
local size = redis.call('MEMORY', 'USAGE', KEYS[1])
if not size then return false end
if size > tonumber(ARGV[1]) then return {size} end
local expires = redis.call('PEXPIRETIME', KEYS[1])
return {redis.call('DUMP', KEYS[1]), string.format('%d', math.max(expires, 0))}
