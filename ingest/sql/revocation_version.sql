-- The version that every change of what is cached raises.
SELECT version FROM control.revocation
