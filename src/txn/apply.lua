-- apply: runs the stored redo, once, if the record is prepared.
--
-- KEYS 1 the record
-- ARGV 1 id
--      2 database, 3 questions (MessagePack: a command, the replies that will do, a command ...),
--      if it is to be applied on a condition only
--
-- Answers {'now', reply...}, or {state} (false: no record) when nothing was done: {'prepared'} if
-- the condition does not hold.
--
-- FLUSHALL, FLUSHDB and SWAPDB, only ever in a branch that holds '*', are those of flush.lua above.
--
-- A promise is kept on a full server too: HDEL is not denyoom, and after one write of a script
-- Redis no longer refuses for memory. READONLY, MISCONF and NOREPLICAS still refuse at the
-- first write, whole. Everything that can fail in here (decoding, too many arguments for
-- unpack) is done before it.
local call, pcall = redis.call, redis.pcall
local record = KEYS[1]
local promise = call('HMGET', record, 'state', 'redo', 'keys')
if promise[1] ~= 'prepared' then return {promise[1]} end
if ARGV[2] then
  call('SELECT', ARGV[2])
  local asked, holds = cmsgpack.unpack(ARGV[3]), true
  for i = 1, #asked, 2 do
    local reply, found = pcall(unpack(asked[i])), false
    if type(reply) == 'table' then reply = reply.ok end
    for j = 1, reply and #asked[i + 1] or 0 do
      found = found or tostring(reply) == asked[i + 1][j]
    end
    holds = holds and found
  end
  call('SELECT', '0')
  if not holds then return {'prepared'} end
end
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
