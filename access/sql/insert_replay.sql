-- A replay, before anything in the log asks for it.
INSERT INTO control.replays (id, organization, mode, event_types, from_position, until_position, since_ms, until_ms, rate_per_s, skipped)
VALUES (%(id)s, %(organization)s, %(mode)s, %(event_types)s, %(from_position)s, %(until_position)s, %(since_ms)s, %(until_ms)s,
        %(rate_per_s)s, %(skipped)s)
