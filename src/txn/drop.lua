
-- (tail of abort.lua and release.lua)
-- Drops the locks of `keys` and their entries in the index and, if `settling`, in that hash,
-- each only if it belongs to `id`; tells who waits.
local n, dropped = #keys, false
if n <= 3 then
  -- Cheaper than array replies while they are few.
  for i = 1, n do
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
else
  local function own(owners, names, first)
    local mine = {}
    for i = 1, #owners do
      if owners[i] == id then mine[#mine + 1] = names[first + i - 1] end
    end
    return mine
  end
  local locks = {}
  for i = 1, n do locks[i] = '__lockstep:lock:' .. keys[i] end
  local hashes = {'__lockstep:index', settling and '__lockstep:settling' or nil}
  for first = 1, n, 1000 do
    local last = math.min(first + 999, n)
    local mine = own(call('MGET', unpack(locks, first, last)), locks, first)
    if #mine > 0 then dropped = call('DEL', unpack(mine)) end
    for h = 1, #hashes do
      mine = own(call('HMGET', hashes[h], unpack(keys, first, last)), keys, first)
      if #mine > 0 then dropped = call('HDEL', hashes[h], unpack(mine)) end
    end
  end
end
if dropped then call('PUBLISH', '__lockstep:released:' .. id, '') end
return 'done'
