-- Reserve idempotency keys for events, or say who holds them. Time is Redis's own, so that processes with other clocks agree.
-- KEYS the reservations, of one organization. ARGV: lease ms, window ms, then of each: event id, fingerprint, owner.
-- Answers {outcome, event id, remaining lease ms} for each.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease, window = now + ARGV[1], ARGV[2]
local function reserve(key, id, fingerprint, owner)
  local held = redis.call('HMGET', key, 'id', 'fingerprint', 'state', 'lease')
  if not held[1] then
    redis.call('HSET', key, 'id', id, 'fingerprint', fingerprint, 'state', 'pending', 'owner', owner, 'lease', lease, 'first', owner)
    redis.call('PEXPIRE', key, window)
    return {'reserved', id, 0}
  end
  local same = held[2] == fingerprint
  if held[3] == 'accepted' then return {same and 'duplicate' or 'conflict', held[1], 0} end
  local remaining = tonumber(held[4]) - now
  if remaining > 0 then return {same and 'pending' or 'conflict', held[1], same and remaining or 0} end
  if not same then return {'lapsed', held[1], 0} end -- it may be another event: its id is not for this one, and the log knows whether it is taken
  redis.call('HSET', key, 'owner', owner, 'lease', lease)
  redis.call('PEXPIRE', key, window) -- the append comes now, so the window begins now, even if nobody lives to confirm it
  return {'takeover', held[1], 0}
end
local answers = {}
for i, key in ipairs(KEYS) do answers[i] = reserve(key, ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]) end
return answers
