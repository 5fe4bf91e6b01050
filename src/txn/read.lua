-- read: the record and the clock, in one step.
--
-- KEYS 1 the record
--
-- Answers {clock ms, state, deadline ms, participants, decider}; false where there is none.
-- Writes nothing, so it is called read-only and runs even while writes are paused.
local time = redis.call('TIME')
local record = redis.call('HMGET', KEYS[1], 'state', 'deadline', 'participants', 'rule')
return {time[1] * 1000 + math.floor(time[2] / 1000), record[1], record[2], record[3], record[4]}
