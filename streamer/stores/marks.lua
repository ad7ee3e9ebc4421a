-- Compare-and-set of marks. KEYS the hash, the writer's sequence; ARGV acknowledged, then per mark:
-- field, expected ('' none), new ('' stay).
-- Returns what is stored then, false where there is none; or false if this Redis has forgotten a
-- write that it had acknowledged: then no mark may vouch for it.
if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[1]) then return false end
redis.call('PEXPIRE', KEYS[2], 86400000)
local function is_mark(value)  -- "OFFSET" or "OFFSET TOPIC_ID"; a foreign value vouches for nothing
  local offset, rest = string.match(value or '', '^(%d+)(.*)$')
  if not offset or #offset > 18 then return false end
  return rest == '' or (#rest <= 65 and string.match(rest, '^ [!-~]+$') ~= nil)
end
local stored = {}
for arg = 2, #ARGV, 3 do
  local current = redis.call('HGET', KEYS[1], ARGV[arg])
  if not is_mark(current) then current = false end
  if (current or '') == ARGV[arg + 1] and ARGV[arg + 2] ~= '' and current ~= ARGV[arg + 2] then
    current = ARGV[arg + 2]
    redis.call('HSET', KEYS[1], ARGV[arg], current)
  end
  stored[#stored + 1] = current
end
return stored
