-- forget: drops locks, index and settling entries that no record accounts for.
--
-- KEYS 1 the record
-- ARGV 1 id  2... what may be held under this id
--
-- Answers the numbers of locks, index and settling entries dropped; or, nothing changed, the
-- state of a record that still speaks for them.
--
-- Each goes only if it is this id's. A record without keys is a marker or a tombstone: decided,
-- released, and no reason for anything to be left.
local call = redis.call
local record, id = KEYS[1], ARGV[1]
if call('HEXISTS', record, 'keys') == 1 then return call('HGET', record, 'state') end

local locks, index, settling = 0, 0, 0
for i = 2, #ARGV do
  local name = ARGV[i]
  local lock = '__lockstep:lock:' .. name
  if call('GET', lock) == id then locks = locks + call('DEL', lock) end
  if call('HGET', '__lockstep:index', name) == id then
    index = index + call('HDEL', '__lockstep:index', name)
  end
  if call('HGET', '__lockstep:settling', name) == id then
    settling = settling + call('HDEL', '__lockstep:settling', name)
  end
end
if locks + index + settling > 0 then call('PUBLISH', '__lockstep:released:' .. id, '') end
return {locks, index, settling}
