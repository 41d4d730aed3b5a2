-- What nothing in the log asks for ends here; what is under way, delivery ends.
UPDATE control.replay_endpoints SET ended = 'cancelled', waiting = false WHERE replay = %(id)s AND waiting AND ended IS NULL
