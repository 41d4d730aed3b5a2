-- One organization by its id, held against other changes until the transaction ends.
SELECT id, name, plan, rate_limit_per_minute, suspended_at IS NOT NULL, encryption, retention_days FROM control.organizations WHERE id = %(id)s FOR NO KEY UPDATE
