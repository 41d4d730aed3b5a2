-- All organizations, oldest first.
SELECT id, name, plan, rate_limit_per_minute FROM control.organizations ORDER BY id
