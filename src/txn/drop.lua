-- (head of abort.lua and release.lua)
-- Drops the locks of `keys` and their entries in the index and, if `settling`, in that hash,
-- each only if it belongs to `id`; tells who waits.
local call = redis.call

local function drop_few(id, keys, settling)
  local dropped = false
  for i = 1, #keys do
    local key = keys[i]
    local lock = '__lockstep:lock:' .. key
    if call('GET', lock) == id then
      call('DEL', lock)
      dropped = true
    end
    if call('HGET', '__lockstep:index', key) == id then
      call('HDEL', '__lockstep:index', key)
      dropped = true
    end
    if settling and call('HGET', '__lockstep:settling', key) == id then
      call('HDEL', '__lockstep:settling', key)
      dropped = true
    end
  end
  return dropped
end

local function own(owners, names, first, id)
  local mine = {}
  for i = 1, #owners do
    if owners[i] == id then mine[#mine + 1] = names[first + i - 1] end
  end
  return mine
end

local function drop_many(id, keys, settling)
  local dropped, locks = false, {}
  local hashes = {'__lockstep:index', settling and '__lockstep:settling'}
  for i = 1, #keys do locks[i] = '__lockstep:lock:' .. keys[i] end
  for first = 1, #keys, 1000 do
    local last = math.min(first + 999, #keys)
    local mine = own(call('MGET', unpack(locks, first, last)), locks, first, id)
    if #mine > 0 then dropped = call('DEL', unpack(mine)) end
    for h = 1, settling and 2 or 1 do
      mine = own(call('HMGET', hashes[h], unpack(keys, first, last)), keys, first, id)
      if #mine > 0 then dropped = call('HDEL', hashes[h], unpack(mine)) end
    end
  end
  return dropped
end

local function drop(id, keys, settling)
  local some = #keys <= 3 and drop_few or drop_many
  if some(id, keys, settling) then call('PUBLISH', '__lockstep:released:' .. id, '') end
end

