-- Move a broken history aside, unless somebody has mended it meanwhile.
-- KEYS history, quarantine; ARGV the broken value, 1 if the key held no string.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return 0 end
local is_string = kind == 'string'
if (ARGV[2] == '1' and not is_string)
  or (ARGV[2] == '0' and is_string and redis.call('GET', KEYS[1]) == ARGV[1]) then
  -- The first broken value is the one with something in it to be saved.
  if redis.call('RENAMENX', KEYS[1], KEYS[2]) == 0 then redis.call('UNLINK', KEYS[1]) end
  return 1
end
return 0
