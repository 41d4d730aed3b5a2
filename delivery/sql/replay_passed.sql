-- A later page is in the log already, with how far it is.
UPDATE control.replay_endpoints SET page = %(page)s, waiting = false
WHERE replay = %(round)s AND endpoint = %(endpoint_id)s AND page < %(page)s AND ended IS NULL
