-- Whether a replay goes on, and how far it is at one of its endpoints.
SELECT r.state, r.rate_per_s, e.page, e.ended
FROM control.replays r JOIN control.replay_endpoints e ON e.replay = r.id
WHERE r.id = %(round)s AND e.endpoint = %(endpoint_id)s
