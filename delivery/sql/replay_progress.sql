-- The next page is asked for in the log. A copy of an earlier page moves nothing back.
UPDATE control.replay_endpoints
SET page = %(page)s, next_position = %(next_offset)s, ingested_high = %(ingested_high)s, begun = %(begun)s, waiting = false
WHERE replay = %(round)s AND endpoint = %(endpoint_id)s AND page < %(page)s AND ended IS NULL
