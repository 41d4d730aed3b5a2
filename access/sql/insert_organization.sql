-- A new organization.
INSERT INTO control.organizations (id, name, plan, rate_limit_per_minute)
VALUES (%(id)s, %(name)s, %(plan)s, %(rate_limit_per_minute)s)
