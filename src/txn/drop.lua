-- (head of abort.lua and release.lua)
-- Drops the locks and the entries of `hashes` for `keys`, each only if it belongs to `id`.
local call = redis.call

local function own(owners, names, first, id)
  local mine = {}
  for i = 1, #owners do
    if owners[i] == id then mine[#mine + 1] = names[first + i - 1] end
  end
  return mine
end

local function drop(id, keys, hashes)
  local dropped, locks = 0, {}
  for i = 1, #keys do locks[i] = '__lockstep:lock:' .. keys[i] end
  for first = 1, #keys, 1000 do
    local last = math.min(first + 999, #keys)
    local mine = own(call('MGET', unpack(locks, first, last)), locks, first, id)
    if #mine > 0 then dropped = dropped + call('DEL', unpack(mine)) end
    for h = 1, #hashes do
      mine = own(call('HMGET', hashes[h], unpack(keys, first, last)), keys, first, id)
      if #mine > 0 then dropped = dropped + call('HDEL', hashes[h], unpack(mine)) end
    end
  end
  if dropped > 0 then call('PUBLISH', '__lockstep:released:' .. id, '') end
end

