-- count: how many keys of this database are not ours.
--
-- KEYS the keys of ours with names of their own
--
-- Answers the number. Costs what is in doubt and what markers there are, not what keys there are:
-- locks and undecided records are found by the index, which outlives neither of them; markers
-- and tombstones by the set of those. Whatever has expired is deleted by being
-- looked at, so the size is taken last.
local call = redis.call
local ours = 0
local function count(key)
  ours = ours + call('EXISTS', key)
end
for i = 1, #KEYS do count(KEYS[i]) end
local seen = {}
local function record(id)
  if not seen[id] then
    seen[id] = true
    count('__lockstep:txn:' .. id)
  end
end
local index = call('HGETALL', '__lockstep:index')
for i = 1, #index, 2 do
  -- That of every slot has a name of its own.
  if index[i] ~= '*' then count('__lockstep:lock:' .. index[i]) end
  record(index[i + 1])
end
local markers = call('ZRANGE', '__lockstep:markers', 0, -1)
for i = 1, #markers do record(markers[i]) end
return call('DBSIZE') - ours
