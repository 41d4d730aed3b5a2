-- Whether an organization and mode's mark has come this far.
SELECT 1 FROM folds.retention WHERE organization = %(organization)s AND mode = %(mode)s AND event_id >= %(mark)s
