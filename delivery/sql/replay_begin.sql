-- The log asks for this page.
UPDATE control.replay_endpoints SET waiting = false WHERE replay = %(round)s AND endpoint = %(endpoint_id)s AND page = %(page)s AND waiting
