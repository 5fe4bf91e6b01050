-- apply: runs the stored redo, once, if the record is prepared.
--
-- KEYS 1 the record
-- ARGV 1 id
--
-- Answers {'now', reply...}, or {state} (false: no record) when nothing was done.
--
-- FLUSHALL and FLUSHDB, only ever in a branch that holds '*', are those of flush.lua above.
--
-- A promise is kept on a full server too: HDEL is not denyoom, and after one write of a script
-- Redis no longer refuses for memory. READONLY, MISCONF and NOREPLICAS still refuse at the
-- first write, whole. Everything that can fail in here (decoding, too many arguments for
-- unpack) is done before it.
local call, pcall = redis.call, redis.pcall
local record = KEYS[1]
local promise = call('HMGET', record, 'state', 'redo', 'keys')
if promise[1] ~= 'prepared' then return {promise[1]} end
local redo, keys = cmsgpack.unpack(promise[2]), cmsgpack.unpack(promise[3])
for i = 1, #redo do
  if #redo[i] > 7000 then return {err = 'TOOLONG command for a script'} end
end

local marked = pcall('HSET', record, 'state', 'applied')
if marked ~= 0 then
  if string.sub(marked.err, 1, 4) ~= 'OOM ' then return marked end
  call('HDEL', record, 'redo')
  call('HSET', record, 'state', 'applied')
end
local id, n, entries = ARGV[1], #keys, {}
for i = 1, n do
  entries[2 * i - 1] = keys[i]
  entries[2 * i] = id
end
for first = 1, 2 * n, 2000 do
  call('HSET', '__lockstep:settling', unpack(entries, first, math.min(first + 1999, 2 * n)))
end
local every = keys[1] == '*'
