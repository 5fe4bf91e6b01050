
-- (tail of apply.lua and guarded.lua)
-- Runs the commands of `redo` and answers {'now', reply...}; with `every`, FLUSHALL, FLUSHDB
-- and SWAPDB are those of flush.lua.
local out = {'now'}
for i = 1, #redo do
  local command = redo[i]
  local reply
  if every and (command[1] == 'FLUSHALL' or command[1] == 'FLUSHDB') then
    reply = flush(command[1] == 'FLUSHALL', command[2])
  elseif every and command[1] == 'SWAPDB' then
    reply = swap(command[2], command[3])
  else
    reply = pcall(unpack(command))
  end
  if type(reply) == 'number' and (reply >= 2^53 or reply <= -2^53) then
    -- Lua has no such integer. INCR and its kin left it in the key, as text.
    local exact
    if #command == 4 then
      exact = pcall('HGET', command[2], command[3])
    else
      exact = pcall('GET', command[2])
    end
    if type(exact) == 'string' then reply = {ok = ':' .. exact} end
  end
  out[i + 1] = reply
end
return out
