-- Reserve an idempotency key for an event, or say who holds it. Time is Redis's own, so that processes with other clocks agree.
-- KEYS[1] the reservation. ARGV: event id, fingerprint, owner, lease ms, window ms.
-- Answers {outcome, event id, remaining lease ms}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'id', 'fingerprint', 'state', 'lease')
if not held[1] then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'fingerprint', ARGV[2], 'state', 'pending', 'owner', ARGV[3], 'lease', now + ARGV[4], 'first', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {'reserved', ARGV[1], 0}
end
if held[2] ~= ARGV[2] then return {'conflict', held[1], 0} end
if held[3] == 'accepted' then return {'duplicate', held[1], 0} end
local remaining = tonumber(held[4]) - now
if remaining > 0 then return {'pending', held[1], remaining} end
redis.call('HSET', KEYS[1], 'owner', ARGV[3], 'lease', now + ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5]) -- the append comes now, so the window begins now, even if nobody lives to confirm it
return {'takeover', held[1], 0}
