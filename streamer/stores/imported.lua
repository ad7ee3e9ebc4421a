-- Write imported vectors of many users at once: docs/reference/redis.md.
--
-- KEYS  the history of each user; the imported vector of each user.
-- ARGV  n_users, trained_through_ms (0: unknown), expire_ms (0: never); the values.
-- Returns the rows, from 0, of users who were forgotten after what their vector was trained on:
-- nothing was written for them.

local n_users, trained_through_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local expire_ms = ARGV[3]
local forgotten = {}

-- Epoch milliseconds, 0 where nothing was forgotten. A Lua number holds them exactly.
local function forgotten_before_ms(key)
  local head = redis.pcall('GETRANGE', key, 0, 23)
  if type(head) ~= 'string' or #head < 24 or string.sub(head, 1, 3) ~= 'SH\1' then return 0 end
  return struct.unpack('<I8', string.sub(head, 17, 24))
end

for row = 0, n_users - 1 do
  local before_ms = forgotten_before_ms(KEYS[row + 1])
  if before_ms > 0 and trained_through_ms <= before_ms then
    forgotten[#forgotten + 1] = row
  elseif expire_ms == '0' then
    redis.call('SET', KEYS[n_users + row + 1], ARGV[row + 4])
  else
    redis.call('SET', KEYS[n_users + row + 1], ARGV[row + 4], 'PX', expire_ms)
  end
end
return forgotten
