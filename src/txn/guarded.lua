#!lua
-- guarded: runs commands at once, unless one of these slots is settling.
--
-- ARGV 1 slots (MessagePack array)  2 commands (MessagePack array of arrays)
--
-- Answers {'now', reply...}, or {'settling', owner} when nothing was done.
--
-- With a shebang: the right to write (memory, READONLY, MISCONF, NOREPLICAS) is checked before
-- anything runs, so that the shard refuses the whole, as it refuses an EXEC.
local call, pcall = redis.call, redis.pcall
local redo, slots = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[1])
for i = 1, #redo do
  if #redo[i] > 7000 then return {err = 'TOOLONG command for a script'} end
end
if call('HGET', '__lockstep:settling', '*') then return {'settling', call('HGET', '__lockstep:settling', '*')} end
for first = 1, #slots, 1000 do
  local owners = call('HMGET', '__lockstep:settling', unpack(slots, first, math.min(first + 999, #slots)))
  for i = 1, #owners do
    if owners[i] then return {'settling', owners[i]} end
  end
end
local every = false
