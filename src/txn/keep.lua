-- (head of abort.lua and release.lua)
-- The record stays for so long, as a marker or a tombstone, and is noted among those.
local function keep(record, id, ms)
  local call = redis.call
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('PEXPIRE', record, ms)
  call('ZREMRANGEBYSCORE', '__lockstep:markers', '-inf', now)
  call('ZADD', '__lockstep:markers', now + ms, id)
  -- The note outlives what it names, and no more.
  if call('PTTL', '__lockstep:markers') < tonumber(ms) + 1 then
    call('PEXPIRE', '__lockstep:markers', ms + 1)
  end
end

