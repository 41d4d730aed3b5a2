-- The next page is left here and not asked for, if the replay is still paused: whoever resumes it asks for it.
UPDATE control.replay_endpoints e
SET page = %(page)s, next_position = %(next_offset)s, ingested_high = %(ingested_high)s, begun = %(begun)s, waiting = true
FROM (SELECT id FROM control.replays WHERE id = %(round)s AND state = 'paused' FOR UPDATE) r
WHERE e.replay = r.id AND e.endpoint = %(endpoint_id)s AND e.page < %(page)s AND e.ended IS NULL
