-- One organization by its id.
SELECT id, name, plan, rate_limit_per_minute FROM control.organizations WHERE id = %(id)s
