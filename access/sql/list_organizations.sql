-- Organizations by age, oldest first, from the one after an id on; all that are left without a limit.
SELECT id, name, plan, rate_limit_per_minute, suspended_at IS NOT NULL, encryption, retention_days
FROM control.organizations WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
