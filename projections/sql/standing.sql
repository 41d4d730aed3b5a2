-- Where the fold of a partition stands, and in which topic generation: the tables hold one at a time.
SELECT next_offset, generation FROM projection_offsets WHERE topic = %s AND partition = %s ORDER BY generation DESC LIMIT 1
