-- The version that every revoke raises.
SELECT version FROM control.revocation
