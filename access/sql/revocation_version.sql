-- The version that caches of keys are bound to.
SELECT version FROM control.revocation
