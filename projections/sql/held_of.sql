-- How many events an endpoint missed while it was disabled, and the first and the last of them.
WITH missed AS NOT MATERIALIZED (
    SELECT event_id, journal_offset FROM plans
    WHERE organization = %(organization)s AND mode = %(mode)s AND endpoint_id = %(endpoint_id)s AND held
)
SELECT (SELECT count(*) FROM missed),
       (SELECT event_id FROM missed ORDER BY journal_offset LIMIT 1),
       (SELECT event_id FROM missed ORDER BY journal_offset DESC LIMIT 1)
