-- Whether a replay goes on, and how fast.
UPDATE control.replays SET state = %(state)s, rate_per_s = %(rate_per_s)s, changed_at = now() WHERE id = %(id)s
