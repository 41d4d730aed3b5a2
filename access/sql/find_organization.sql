-- One organization by its id.
SELECT id, name, plan, rate_limit_per_minute, suspended_at IS NOT NULL, encryption, retention_days FROM control.organizations WHERE id = %(id)s
