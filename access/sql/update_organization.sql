-- An organization as it is to be from now on. A suspension keeps the time it began.
UPDATE control.organizations
SET name = %(name)s, plan = %(plan)s, rate_limit_per_minute = %(rate_limit_per_minute)s, retention_days = %(retention_days)s,
    encryption = %(encryption)s, suspended_at = CASE WHEN %(suspended)s THEN coalesce(suspended_at, now()) END
WHERE id = %(id)s
