local redis=(function(r)
local keyless={ping=1,echo=1,time=1,lolwut=1,command=1,publish=1}
local why='CROSSSLOT a script that declares no keys cannot call this on several shards: declare the keys that it touches'
local function may(name) return type(name)~='string' or keyless[name:lower()] or not r.call('COMMAND','INFO',name)[1] end
local own={
call=function(...) if may((...)) then return r.call(...) end error({err=why}) end,
pcall=function(...) if may((...)) then return r.pcall(...) end return {err=why} end
}
return setmetatable({},{
__index=function(_,name) return own[name] or r[name] end,
__newindex=function() error('Attempt to modify a readonly table',2) end
})
end)(redis)
local server,_G,getfenv,setfenv,loadstring,load,debug=redis
