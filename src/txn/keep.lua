-- (head of abort.lua and release.lua)
-- Lets a record stay for so many milliseconds, and notes it where count.lua looks for it. Never
-- the first write of a script: ZADD is denyoom.
local function keep(record, id, retention)
  local call, kept, time = redis.call, '__lockstep:kept', redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('PEXPIRE', record, retention)
  call('ZREMRANGEBYSCORE', kept, '-inf', now - 60000)
  call('ZADD', kept, now + retention, id)
  call('PEXPIRE', kept, math.max(retention + 60000, call('PTTL', kept)))
end

