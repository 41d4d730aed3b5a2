-- Everything that changes what a cached key may do raises the version that caches of keys are bound to.
UPDATE control.revocation SET version = version + 1 RETURNING version
