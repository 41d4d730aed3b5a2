-- An endpoint of a replay.
INSERT INTO control.replay_endpoints (replay, endpoint, expected, next_position)
VALUES (%(replay)s, %(endpoint)s, %(expected)s, %(next_position)s)
