-- abort: the branch will never run.
--
-- KEYS 1 the record
-- ARGV 1 id  2 retention ms of what is left
--      3 a prepared record: '0' is deleted, '1' becomes a marker, '-' stays (tombstone only)
--      4 not-after ms (this server's clock) of a tombstone; without it none is written
--
-- Answers 'done', or, nothing changed: 'applied', 'prepared', or 'late' (absent).
--
-- The keys come from the record, so anyone may abort who knows the id. They are not declared:
-- only a cluster routes scripts by declared keys, plain servers do not look at them.
-- Each path begins with a write that is not denyoom (DEL, HDEL), so a full server lets it pass.
local call = redis.call
local record, id = KEYS[1], ARGV[1]
local state = call('HGET', record, 'state')
if state == 'applied' then return 'applied' end
if state == 'aborted' then return 'done' end
if not state then
  if not ARGV[4] then return 'done' end
  local time = call('TIME')
  if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[4]) then return 'late' end
  call('DEL', record)
  call('HSET', record, 'state', 'aborted')
  keep(record, id, ARGV[2])
  return 'done'
end
if ARGV[3] == '-' then return 'prepared' end

local keys = cmsgpack.unpack(call('HGET', record, 'keys'))
if ARGV[3] == '1' then
  call('HDEL', record, 'redo', 'keys')
  call('HSET', record, 'state', 'aborted')
  keep(record, id, ARGV[2])
else
  call('DEL', record)
end
local settling = false
