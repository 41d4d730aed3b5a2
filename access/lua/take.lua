-- Take from a quota: a sliding window of sub-buckets, the oldest counted whole, so that no window ever holds more than the limit.
-- KEYS[1] the window: a hash of bucket number -> events, with `total` (of all buckets kept), `oldest` and `newest` (bucket numbers).
-- ARGV: limit, events asked for, buckets in a window, bucket ms, time as Unix ms (empty: Redis's own; tests say it).
-- Answers {events granted, events left, ms until the oldest bucket leaves the window}.
local limit, asked, span, width = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(ARGV[5])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local bucket = math.floor(now / width)
local kept = redis.call('HMGET', KEYS[1], 'total', 'oldest', 'newest')
local total, oldest, newest = tonumber(kept[1]) or 0, tonumber(kept[2]) or bucket, tonumber(kept[3]) or bucket
if bucket - newest > span or newest - bucket > span then -- all of it has left, or the clock was set back by more than a window
  redis.call('DEL', KEYS[1])
  total, oldest, newest = 0, bucket, bucket
end
-- A clock set back by less: time stands still until it has caught up, so that nothing is granted twice.
if bucket < newest then bucket = newest end
-- Time runs from the oldest bucket to the first that stays. Each bucket is passed once, so a call costs what has passed since the last one.
while oldest < bucket do
  local count = redis.call('HGET', KEYS[1], oldest)
  if count then
    if oldest >= bucket - span then break end
    total = total - count
    redis.call('HDEL', KEYS[1], oldest)
  end
  oldest = oldest + 1
end
local granted = math.max(0, math.min(asked, limit - total))
if granted > 0 then
  redis.call('HINCRBY', KEYS[1], bucket, granted)
  total = total + granted
end
redis.call('HSET', KEYS[1], 'total', total, 'oldest', oldest, 'newest', bucket)
redis.call('PEXPIRE', KEYS[1], (span + 2) * width)
return {granted, math.max(0, limit - total), (oldest + span + 1) * width - now}
