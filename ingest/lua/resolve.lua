-- A reservation that lapsed under another fingerprint, once the log was asked for its event. Nothing, where somebody has it again.
-- KEYS[1] the reservation. ARGV: event id, 1 if it is in the log.
local held = redis.call('HMGET', KEYS[1], 'id', 'state', 'lease')
if held[1] ~= ARGV[1] or held[2] ~= 'pending' then return 0 end
local t = redis.call('TIME')
if tonumber(held[3]) > t[1] * 1000 + math.floor(t[2] / 1000) then return 0 end
if ARGV[2] == '1' then return redis.call('HSET', KEYS[1], 'state', 'accepted') end
return redis.call('DEL', KEYS[1])
