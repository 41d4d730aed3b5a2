-- How far the journal of a partition is folded, in the topic generation that is folded.
SELECT next_offset FROM folds.projection_offsets WHERE topic = %(topic)s AND partition = %(partition)s ORDER BY generation DESC LIMIT 1
