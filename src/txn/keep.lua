-- (head of abort.lua and release.lua)
-- The record stays for so long, as a marker or a tombstone, and is noted among those. Never the
-- first write of a script: ZADD is denyoom.
local function keep(record, id, ms)
  local call = redis.call
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('PEXPIRE', record, ms)
  -- The note outlives what it names by some seconds: what has expired may
  -- still be there, to be counted.
  call('ZREMRANGEBYSCORE', '__lockstep:markers', '-inf', now - 5000)
  call('ZADD', '__lockstep:markers', now + ms, id)
  if call('PTTL', '__lockstep:markers') < ms + 5000 then
    call('PEXPIRE', '__lockstep:markers', ms + 5000)
  end
end

