-- Nothing more is sent to this endpoint.
UPDATE control.replay_endpoints
SET ended = %(ended)s, page = %(page)s, next_position = %(next_offset)s, ingested_high = %(ingested_high)s, begun = %(begun)s, waiting = false
WHERE replay = %(round)s AND endpoint = %(endpoint_id)s AND ended IS NULL
