local redis=(function(r)
local keyless={ping=1,echo=1,time=1,lolwut=1,command=1,publish=1,select=1}
local why='CROSSSLOT a script that declares no keys cannot call this on several shards: declare the keys that it touches'
local function told(name) return r.call('COMMAND','INFO',name)[1] end
local function known(info,count)
local arity=info[2]
if (arity>0 and count~=arity) or count< -arity then return end
for _,flag in ipairs(info[3]) do if flag.ok=='noscript' then return 'ERR This Redis command is not allowed from script' end end
return why
end
local function against(name,sub,...)
if type(name)~='string' or keyless[name:lower()] then return end
local info=told(name)
if info and sub~=nil and info[10] and #info[10]>0 then info=told(name..'|'..tostring(sub)) end
return info and known(info,select('#',...)+(sub==nil and 1 or 2))
end
local own={
call=function(...) local text=against(...) if text then error({err=text}) end return r.call(...) end,
pcall=function(...) local text=against(...) if text then return {err=text} end return r.pcall(...) end
}
return setmetatable({},{
__index=function(_,name) return own[name] or r[name] end,
__newindex=function() error('Attempt to modify a readonly table',2) end
})
end)(redis)
local server,_G,getfenv,setfenv,loadstring,load,debug=redis
