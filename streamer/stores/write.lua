-- Compare-and-set of many users at once: docs/reference/redis.md.
--
-- KEYS  the writer's sequence; the history of each user; the features of each user, one live
--       variant after the other; what forgotten users lose beside that, in order; sums.
-- ARGV  acknowledged, attempt, n_users, n_live, tombstone_ms, expire_ms (0: never), sums_ms;
--       the generation of each live variant, 4 bytes;
--       expected digests, 8 bytes a user; a byte a user, 1 if the history is a tombstone;
--       numbers of keys to delete, 2 bytes a user, or '' for none at all;
--       what sums gain, or '' for nothing: JSON of the number of their keys, the names of fields,
--       and user, key, field (all from 0) and amount of each gain, column by column;
--       the history of each user ('' stays), the features in the order of their keys ('' stay).
-- Returns {row, stored value or false or 0, ...} of the conflicts, n_superseded, n_quarantined; or
-- false, with nothing written, if this Redis has forgotten a write that it had acknowledged.
-- A stored value of 0 means that the key holds no string.

local ABSENT = string.rep('\0', 8)
local last = tonumber(redis.call('GET', KEYS[1]) or 0)
if last < tonumber(ARGV[1]) then return false end
-- A call that its writer gave up, in the buffer of a server that was frozen: the writer has long
-- repeated it, and listens no more. Its number would look like a loss.
if last >= tonumber(ARGV[2]) then return false end
redis.call('SET', KEYS[1], ARGV[2], 'PX', 86400000)

local n_users, n_live = tonumber(ARGV[3]), tonumber(ARGV[4])
local tombstone_ms, expire_ms, sums_ms = ARGV[5], ARGV[6], ARGV[7]
local conflicts, n_superseded, n_quarantined = {}, 0, 0
local digests, tombstones, doomed_counts, additions = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local is_unwritten = {}
local next_doomed = n_users * (1 + n_live) + 2

local function set(key, value, ttl_ms)
  if ttl_ms == '0' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', ttl_ms)
  end
end

-- The digest that a compare-and-set compares; nil if the key holds something unknown, also a
-- value that claims to be absent.
local function stored_digest(key)
  local head = redis.pcall('GETRANGE', key, 0, 15)
  if type(head) ~= 'string' then return nil end
  if head == '' and redis.call('EXISTS', key) == 0 then return ABSENT end
  if string.sub(head, 1, 3) ~= 'SH\1' then return nil end
  local digest = string.sub(head, 9, 16)
  if digest == ABSENT then return nil end
  return digest
end

-- A slow worker must not put an old model's features back.
local function set_features(key, value, generation, ttl_ms)
  local head = redis.pcall('GETRANGE', key, 0, 27)
  if head ~= '' then
    if type(head) ~= 'string' or #head < 28 or string.sub(head, 1, 3) ~= 'SF\1' then
      redis.call('RENAMENX', key, 'st:q:' .. string.sub(key, 4))
      n_quarantined = n_quarantined + 1
    elseif struct.unpack('<I4', string.sub(head, 25, 28)) > generation then
      n_superseded = n_superseded + 1
      return
    end
  end
  set(key, value, ttl_ms)
end

-- Features go with their history: folding in a user who is idle is no activity.
local function ttl_of_features(history_key, history)
  if expire_ms == '0' or history ~= '' then return expire_ms end
  local left_ms = redis.call('PTTL', history_key)
  if left_ms <= 0 then return expire_ms end
  return string.format('%.0f', left_ms)
end

local generation_of = {}
for live = 1, n_live do generation_of[live] = struct.unpack('<I4', ARGV[8], 4 * live - 3) end

for row = 0, n_users - 1 do
  local history_key, history = KEYS[row + 2], ARGV[row + 13]
  local n_doomed = 0
  if doomed_counts ~= '' then n_doomed = struct.unpack('<I2', doomed_counts, 2 * row + 1) end
  if stored_digest(history_key) ~= string.sub(digests, 8 * row + 1, 8 * row + 8) then
    local stored = redis.pcall('GET', history_key)
    if type(stored) == 'table' then stored = 0 end
    is_unwritten[row] = true
    conflicts[#conflicts + 1] = row
    conflicts[#conflicts + 1] = stored
  else
    if history ~= '' then
      local is_tombstone = string.byte(tombstones, row + 1) == 1
      set(history_key, history, is_tombstone and tombstone_ms or expire_ms)
    end
    for doomed = next_doomed, next_doomed + n_doomed - 1 do
      redis.call('UNLINK', KEYS[doomed])
    end
    local ttl_ms
    for live = 1, n_live do
      local features = ARGV[live * n_users + row + 13]
      if features ~= '' then
        ttl_ms = ttl_ms or ttl_of_features(history_key, history)
        set_features(KEYS[live * n_users + row + 2], features, generation_of[live], ttl_ms)
      end
    end
  end
  next_doomed = next_doomed + n_doomed
end

-- Sums of experiments gain with a user's history, in this same call, or not at all: ADR 0008. A key
-- that holds something else must harm no history, so its error is dropped.
if additions ~= '' then
  local n_keys, names, users, keys, fields_of, amounts = unpack(cjson.decode(additions))
  local gained = {}
  for at = 1, #users do
    if not is_unwritten[users[at]] then
      local fields = gained[keys[at]] or {}
      gained[keys[at]] = fields
      local field = names[fields_of[at] + 1]
      fields[field] = (fields[field] or 0) + amounts[at]
    end
  end
  local first_key = #KEYS - n_keys + 1
  for key, fields in pairs(gained) do
    local is_sum = false
    for field, amount in pairs(fields) do
      local sum = redis.pcall('HINCRBY', KEYS[first_key + key], field, string.format('%.0f', amount))
      is_sum = is_sum or type(sum) == 'number'
    end
    if is_sum then redis.call('PEXPIRE', KEYS[first_key + key], sums_ms) end
  end
end
return {conflicts, n_superseded, n_quarantined}
