-- A new webhook endpoint.
INSERT INTO control.endpoints (id, organization, mode, url, description, event_types, enabled, disabled_reason)
VALUES (%(id)s, %(organization)s, %(mode)s, %(url)s, %(description)s, %(event_types)s, %(enabled)s, %(disabled_reason)s)
