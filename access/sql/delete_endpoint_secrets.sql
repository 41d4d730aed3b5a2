-- Secrets of an endpoint that are over, or all of them.
DELETE FROM control.endpoint_secrets WHERE endpoint = %(endpoint)s AND (%(all)s OR expires_at <= now())
