-- flush: FLUSHALL or FLUSHDB of what is the clients', swap: SWAPDB of it; what is ours stays as it
-- is, where it is.
--
-- Functions, for apply and for an EVAL between MULTI and EXEC. Runs behind the mark of a
-- transaction that holds '*': whatever else was under way here has ended, so of ours there are
-- only the keys with names of their own, this transaction's record, and markers and tombstones.
-- Those are put away and put back in the same step. The cost is theirs, not the keyspace's.
--
-- Database by database, since FLUSHALL itself may save a snapshot at once, in which ours would
-- be missing. The first write is FLUSHDB, which a full server lets pass. All ends in database 0.
local function ours()
  local call = redis.call
  local names = {'__lockstep:index', '__lockstep:settling', '__lockstep:epoch',
    '__lockstep:markers', '__lockstep:map', '__lockstep:lock:*'}
  local owner = call('HGET', '__lockstep:index', '*')
  local ids = call('ZRANGE', '__lockstep:markers', 0, -1)
  if owner then ids[#ids + 1] = owner end
  for i = 1, #ids do names[#names + 1] = '__lockstep:txn:' .. ids[i] end
  return names
end

local function flush(all, mode)
  local call, pcall = redis.call, redis.pcall
  if all then call('SELECT', 0) end
  local names, kept = ours(), {}
  for i = 1, #names do
    local value = call('DUMP', names[i])
    if value then kept[#kept + 1] = {names[i], call('PEXPIRETIME', names[i]), value} end
  end

  local flushdb = {'FLUSHDB', mode}
  local done = pcall(unpack(flushdb))
  for i = 1, #kept do
    local name, expires, value = unpack(kept[i])
    call('RESTORE', name, math.max(expires, 0), value, 'REPLACE', 'ABSTTL')
  end
  for db = 1, all and 65535 or 0 do
    if pcall('SELECT', db).err then break end
    pcall(unpack(flushdb))
  end
  if all then call('SELECT', 0) end
  return done
end

-- Database indexes as decimal text, within range. What is to be in database 0 in the end goes to
-- the one that comes there.
local function swap(one, other)
  local call = redis.call
  call('SELECT', 0)
  local away = one == '0' and other or other == '0' and one or '0'
  local names = away == '0' and {} or ours()
  for i = 1, #names do call('MOVE', names[i], away) end
  return call('SWAPDB', one, other)
end

