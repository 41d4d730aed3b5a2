-- How far the journal of a partition is folded.
SELECT next_offset FROM folds.projection_offsets WHERE topic = %(topic)s AND partition = %(partition)s AND generation = %(generation)s
