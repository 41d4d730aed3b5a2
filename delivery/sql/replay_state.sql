-- Whether a replay goes on.
SELECT state FROM control.replays WHERE id = %(round)s
