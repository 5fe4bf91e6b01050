-- release: drops what a decided transaction still holds.
--
-- KEYS 1 the record
-- ARGV 1 id  2 retention ms of the marker, '0': leave nothing  3 replies to keep in it, if any
--
-- Answers 'done', or 'prepared' (not decided here: nothing changed).
--
-- The keys come from the record and are not declared: see abort.lua. The first write is never
-- denyoom (DEL, HDEL), so a full server lets it pass.
local record = call('HMGET', KEYS[1], 'state', 'keys')
if not record[1] then return 'done' end
if record[1] == 'prepared' then return 'prepared' end
local keys = record[2] and cmsgpack.unpack(record[2])
if ARGV[2] == '0' then
  call('DEL', KEYS[1])
else
  call('HDEL', KEYS[1], 'redo', 'keys')
  if ARGV[3] then call('HSET', KEYS[1], 'replies', ARGV[3]) end
  call('PEXPIRE', KEYS[1], ARGV[2])
end
if keys then drop(ARGV[1], keys, true) end
return 'done'
