-- Every mark, by organization and mode.
SELECT organization, mode, event_id FROM folds.retention
