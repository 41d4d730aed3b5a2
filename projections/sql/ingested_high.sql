-- The highest ingested offset the inbox has taken from a partition.
SELECT ingested_high FROM projection_offsets WHERE topic = %s AND partition = %s AND generation = %s
