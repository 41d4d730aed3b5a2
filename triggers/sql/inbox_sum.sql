-- How many rows the inbox has, and a sum over all of their columns that no order of them changes.
SELECT count(*), coalesce(sum(hashtextextended(row::text, 0)::numeric), 0)::text FROM folds.inbox AS row
