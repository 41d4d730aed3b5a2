-- The events of reservations are in the log: accepted, whoever owns the lease now, until the log's own window has passed.
-- KEYS the reservations, of one organization. ARGV of each: event id, fingerprint, expiry as Unix ms. One that another event holds is left.
for i, key in ipairs(KEYS) do
  local id = redis.call('HGET', key, 'id')
  if not id or id == ARGV[3 * i - 2] then
    redis.call('HSET', key, 'id', ARGV[3 * i - 2], 'fingerprint', ARGV[3 * i - 1], 'state', 'accepted')
    redis.call('PEXPIREAT', key, ARGV[3 * i])
  end
end
return #KEYS
