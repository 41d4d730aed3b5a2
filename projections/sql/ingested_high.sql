-- The highest ingested offset the inbox has taken from a partition, in the topic generation that is folded.
SELECT ingested_high FROM projection_offsets WHERE topic = %s AND partition = %s ORDER BY generation DESC LIMIT 1
