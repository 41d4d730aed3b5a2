-- Every mark: the lowest event id that stays.
SELECT organization, mode, event_id FROM retention
