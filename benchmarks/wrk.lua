-- Unique events for wrk, as benchmarks/load.py makes them. Arguments: bytes of an event, a name of the run, then API keys, used in turn.
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number_of_thread", threads)
end

function init(args)
  filling, run, keys, count = string.rep("x", math.max(0, tonumber(args[1]) - 150)), args[2] .. "." .. number_of_thread, {}, 0
  for i = 3, #args do keys[#keys + 1] = args[i] end
end

function request()
  count = count + 1
  local body = string.format(
    '{"type":"order.paid","idempotency_key":"%s-%d","payload":{"order":%d,"currency":"EUR","note":"%s"}}', run, count, count, filling)
  local headers = {["Content-Type"] = "application/json", ["X-API-Key"] = keys[count % #keys + 1]}
  return wrk.format("POST", "/events", headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests":%d,"seconds":%f,"refused":%d,"lost":%d,"p50_ms":%f,"p99_ms":%f}', summary.requests,
    summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
