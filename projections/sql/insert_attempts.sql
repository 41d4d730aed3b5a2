-- Attempts; the first journal record of an attempt stays.
INSERT INTO attempts (organization, mode, event_id, endpoint_id, round, attempt, partition, journal_offset, outcome, started_at_ms, duration_ms,
                      worker, status, error, response, next_kind, next_at_ms, dead_reason,
                      cause)
SELECT o, m, e, ep, ro, n, %(partition)s, j, oc, st, du, w, s, er, re, nk, na, dr, ca
FROM unnest(%(organization)b::text[], %(mode)b::text[], %(event_id)b::text[], %(endpoint_id)b::text[], %(round)b::text[], %(attempt)b::int4[],
            %(journal_offset)b::int8[], %(outcome)b::text[], %(started_at_ms)b::int8[], %(duration_ms)b::int8[], %(worker)b::text[],
            %(status)b::int4[], %(error)b::text[], %(response)b::text[], %(next_kind)b::text[], %(next_at_ms)b::int8[],
            %(dead_reason)b::text[], %(cause)b::text[])
     AS x (o, m, e, ep, ro, n, j, oc, st, du, w, s, er, re, nk, na, dr, ca)
WHERE NOT EXISTS (SELECT FROM retention r WHERE r.organization = x.o AND r.mode = x.m AND x.e < r.event_id)
ON CONFLICT DO NOTHING
