-- An endpoint that has failed for too long is disabled, with its audit row, in one statement.
WITH disabled AS (
    UPDATE control.endpoints SET enabled = false, disabled_reason = 'failing', disabled_at = now(), updated_at = now()
    WHERE id = %(id)s AND enabled AND failing_since <= to_timestamp(%(before_ms)s::float8 / 1000)
    RETURNING id, organization, failing_since
)
INSERT INTO control.audit_log (actor, action, organization, target, detail)
SELECT %(actor)s, 'endpoint.disabled', organization, id, jsonb_build_object('reason', 'failing', 'failing_since', failing_since) FROM disabled
