-- Claim of a page of a sweep: docs/reference/redis.md.
--
-- KEYS  the hash of a variant's sweep.
-- ARGV  a server, the state that was seen ('' for none), the state to set.
-- Returns 1 if it was set, 0 if somebody else was faster.

local function generation_of(state)
  local is_json, found = pcall(cjson.decode, state)
  return is_json and type(found) == 'table' and tonumber(found.generation) or 0
end

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local generation = generation_of(ARGV[3])
if generation_of(ARGV[2]) ~= generation then
  -- A sweep begins: servers that have gone, or have other users now, leave their states behind.
  local states = redis.call('HGETALL', KEYS[1])
  for index = 1, #states, 2 do
    if generation_of(states[index + 1]) < generation then
      redis.call('HDEL', KEYS[1], states[index])
    end
  end
end
return 1
