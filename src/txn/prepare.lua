-- prepare: locks the branch's keys and writes its intent, or leaves no trace.
--
-- KEYS 1 the record
-- ARGV 1 id  2 ttl ms  3 not-after ms (this server's clock)  4 participants
--      5 keys (MessagePack array)  6 redo (MessagePack array of arrays)
--      7 decider, if any, or ''  8 watched keys (MessagePack array), if it is conditional
--
-- Answers the clock in ms (yes), or {'seen', state}, {'late', clock}, {'held', owner, ms, clock, key}.
--
-- No shebang, so that the rights to write are checked at the first write and nothing before
-- it: SET and INCR are denyoom, hence OOM, READONLY, MISCONF and NOREPLICAS refuse the whole.
-- The record is written before the index, so that no index entry can be without a record.
--
-- The key '*', always alone, is every key: whatever is indexed is in its way. It is for FLUSHALL,
-- which must work on a full server, hence HDEL, which is not denyoom, before its first SET. When
-- it is refused its lock stays for a moment as an intention: others wait, what is under way ends.
local call = redis.call
local record, id, ttl = KEYS[1], ARGV[1], ARGV[2]
local seen = call('HGET', record, 'state')
if seen then return {'seen', seen} end
local now = call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
if now > tonumber(ARGV[3]) then return {'late', now} end

local keys = cmsgpack.unpack(ARGV[5])
local watched = ARGV[8] and cmsgpack.unpack(ARGV[8])
local n = #keys
local every = keys[1] == '*'
local owner, at

if every then
  local index = call('HGETALL', '__lockstep:index')
  for i = 1, #index, 2 do
    if index[i + 1] ~= id and (not at or index[i] < at) then
      at, owner = index[i], index[i + 1]
    end
  end
else
  owner, at = call('HGET', '__lockstep:index', '*'), '*'
  if owner == id then owner = false end
  if not owner and n <= 3 then
    -- Cheaper than an array reply while they are few.
    for i = 1, n do
      local indexed = call('HGET', '__lockstep:index', keys[i])
      if indexed and indexed ~= id then
        owner, at = indexed, keys[i]
        break
      end
    end
  elseif not owner then
    for first = 1, n, 1000 do
      local last = math.min(first + 999, n)
      local indexed = call('HMGET', '__lockstep:index', unpack(keys, first, last))
      for i = 1, #indexed do
        if indexed[i] and indexed[i] ~= id then
          owner, at = indexed[i], keys[first + i - 1]
          break
        end
      end
      if owner then break end
    end
  end
end

local entries = {}
if every then
  call('HDEL', record, 'state')
  if not owner then
    call('SET', '__lockstep:lock:*', id, 'PX', ttl)
    entries = {'*', id}
  elseif at ~= '*' then
    call('SET', '__lockstep:lock:*', id, 'PX', math.min(ttl, 250))
  end
elseif not owner then
  owner, at = call('GET', '__lockstep:lock:*'), '*'
  if owner == id then owner = false end
  for i = 1, owner and 0 or n do
    local lock = '__lockstep:lock:' .. keys[i]
    -- Taken if there was no holder.
    local holder = call('SET', lock, id, 'NX', 'GET', 'PX', ttl)
    if holder and holder ~= id then
      owner, at = holder, keys[i]
      for j = 1, i - 1 do call('DEL', '__lockstep:lock:' .. keys[j]) end
      break
    end
    entries[2 * i - 1] = keys[i]
    entries[2 * i] = id
  end
end

if owner then
  local deadline = call('HGET', '__lockstep:txn:' .. owner, 'deadline')
  local left = deadline and deadline - now or call('PTTL', '__lockstep:lock:' .. at)
  return {'held', owner, math.max(left, 0), now, at}
end

call('INCR', '__lockstep:epoch')
local deadline = string.format('%d', now + ttl)
if ARGV[7] and ARGV[7] ~= '' then
  call('HSET', record, 'state', 'prepared', 'deadline', deadline, 'participants', ARGV[4],
    'keys', ARGV[5], 'redo', ARGV[6], 'rule', ARGV[7])
  if watched then call('HSET', record, 'conditional', '1') end
elseif watched then
  call('HSET', record, 'state', 'prepared', 'deadline', deadline, 'participants', ARGV[4],
    'keys', ARGV[5], 'redo', ARGV[6], 'conditional', '1')
else
  call('HSET', record, 'state', 'prepared', 'deadline', deadline, 'participants', ARGV[4],
    'keys', ARGV[5], 'redo', ARGV[6])
end
for first = 1, #entries, 2000 do
  call('HSET', '__lockstep:index', unpack(entries, first, math.min(first + 1999, #entries)))
end
if watched then
  local settling = {}
  for i = 1, #watched do
    settling[2 * i - 1] = watched[i]
    settling[2 * i] = id
  end
  for first = 1, #settling, 2000 do
    local last = math.min(first + 1999, #settling)
    call('HSET', '__lockstep:settling', unpack(settling, first, last))
  end
end
return now
