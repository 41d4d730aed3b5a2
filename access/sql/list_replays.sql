-- Replays, newest first, of one organization or of all, from the one before an id on.
SELECT r.id, r.organization, r.mode, r.event_types, r.from_position, r.until_position, r.since_ms, r.until_ms, r.rate_per_s,
       CASE WHEN r.state <> 'cancelled'
                 AND NOT EXISTS (SELECT FROM control.replay_endpoints e WHERE e.replay = r.id AND e.ended IS NULL) THEN 'done'
            ELSE r.state END,
       r.skipped, (extract(epoch FROM r.created_at) * 1000)::bigint, (extract(epoch FROM r.changed_at) * 1000)::bigint
FROM control.replays r
WHERE (%(organization)s::text IS NULL OR r.organization = %(organization)s) AND (%(before)s = '' OR r.id < %(before)s)
ORDER BY r.id DESC LIMIT %(limit)s
