-- Endpoints of organizations and modes, disabled ones too: what they would take is counted as held.
SELECT
    e.id, e.organization, e.mode, e.url, e.event_types, e.headers, e.rate_per_minute, e.concurrency, e.schedule, e.schedule_s, e.deadline_s,
    e.legacy_signature, e.enabled, (extract(epoch FROM e.failing_since) * 1000)::int8, e.fifo, e.fifo_block,
    -- Signing secrets that are valid now, newest first: after a rotation old and new both sign.
    s.ciphertexts, s.master_key_ids
FROM control.endpoints e
CROSS JOIN LATERAL (
    SELECT array_agg(ciphertext ORDER BY id DESC) AS ciphertexts, array_agg(master_key_id ORDER BY id DESC) AS master_key_ids
    FROM control.endpoint_secrets
    WHERE endpoint = e.id AND (expires_at IS NULL OR expires_at > now())
) s
JOIN unnest(%(organizations)s::text[], %(modes)s::text[]) AS x (o, m) ON e.organization = x.o AND e.mode = x.m
WHERE e.deleted_at IS NULL
