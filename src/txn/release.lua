-- release: drops what a decided transaction still holds.
--
-- KEYS 1 the record
-- ARGV 1 id  2 retention ms of the marker, '0': leave nothing  3 replies to keep in it, if any
--
-- Answers 'done', or 'prepared' (not decided here: nothing changed).
--
-- The keys come from the record and are not declared: see abort.lua. The first write is never
-- denyoom (DEL, HDEL), so a full server lets it pass.
local call = redis.call
local record, id = KEYS[1], ARGV[1]
local state = call('HGET', record, 'state')
if not state then return 'done' end
if state == 'prepared' then return 'prepared' end
local keys = call('HGET', record, 'keys')
keys = keys and cmsgpack.unpack(keys)
if ARGV[2] == '0' then
  call('DEL', record)
else
  call('HDEL', record, 'redo', 'keys')
  if ARGV[3] then call('HSET', record, 'replies', ARGV[3]) end
  keep(record, id, ARGV[2])
end
if not keys then return 'done' end
local settling = true
