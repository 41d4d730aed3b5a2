-- The event of a reservation is in the log: accepted, whoever owns the lease now, until the log's own window has passed.
-- KEYS[1] the reservation. ARGV: event id, fingerprint, expiry as Unix ms. Answers 1, or 0 when another event holds the key.
local id = redis.call('HGET', KEYS[1], 'id')
if id and id ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'fingerprint', ARGV[2], 'state', 'accepted')
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
