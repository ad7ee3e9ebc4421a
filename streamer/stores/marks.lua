-- Compare-and-set of marks. KEYS the hash; ARGV per mark: field, expected ('' none), new ('' stay).
-- Returns what is stored then, false where there is none.
local stored = {}
for arg = 1, #ARGV, 3 do
  local current = redis.call('HGET', KEYS[1], ARGV[arg])
  if (current or '') == ARGV[arg + 1] and ARGV[arg + 2] ~= '' and current ~= ARGV[arg + 2] then
    current = ARGV[arg + 2]
    redis.call('HSET', KEYS[1], ARGV[arg], current)
  end
  stored[#stored + 1] = current
end
return stored
