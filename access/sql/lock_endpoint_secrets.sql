-- An endpoint's secrets, before they are changed. Whoever holds several takes them in this order, so that no two wait for each other.
SELECT FROM control.endpoint_secrets WHERE endpoint = %(endpoint)s ORDER BY endpoint, id FOR UPDATE
