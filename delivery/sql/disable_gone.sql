-- An endpoint that answered 410 is disabled, with its audit row, in one statement.
WITH disabled AS (
    UPDATE control.endpoints SET enabled = false, disabled_reason = 'gone', disabled_at = now(), updated_at = now()
    WHERE id = %(id)s AND enabled
    RETURNING id, organization
)
INSERT INTO control.audit_log (actor, action, organization, target, detail)
SELECT %(actor)s, 'endpoint.disabled', organization, id, '{"reason": "gone"}'::jsonb FROM disabled
