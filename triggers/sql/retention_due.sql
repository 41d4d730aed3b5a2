-- What retention takes now of an organization and mode: events of the inbox, and events that lost to another.
SELECT (SELECT count(*) FROM folds.inbox WHERE organization = %(organization)s AND mode = %(mode)s AND event_id < %(before)s),
       (SELECT count(*) FROM folds.duplicates WHERE organization = %(organization)s AND mode = %(mode)s AND event_id < %(before)s)
