-- How far some replays are at their endpoints.
SELECT replay, endpoint, expected, page, next_position, ingested_high, begun, waiting, ended
FROM control.replay_endpoints WHERE replay = ANY(%(ids)s)
ORDER BY replay, endpoint
