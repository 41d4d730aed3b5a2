-- How many events each of some endpoints of an organization and mode missed while it was disabled.
SELECT endpoint_id, count(*) FROM plans
WHERE organization = %(organization)s AND mode = %(mode)s AND endpoint_id = ANY(%(endpoint_ids)s) AND held
GROUP BY endpoint_id
