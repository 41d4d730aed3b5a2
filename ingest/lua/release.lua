-- The append certainly did not happen. Only the first owner may delete: whoever took over an id does not know whether an earlier owner
-- appended under it, so it only ends its lease.
-- KEYS[1] the reservation. ARGV: event id, owner.
local held = redis.call('HMGET', KEYS[1], 'id', 'state', 'owner', 'first')
if held[1] ~= ARGV[1] or held[2] ~= 'pending' or held[3] ~= ARGV[2] then return 0 end
if held[4] == ARGV[2] then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'lease', 0)
return 1
