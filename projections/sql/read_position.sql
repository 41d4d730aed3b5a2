-- Where a fold stands.
SELECT next_offset, ingested_high FROM projection_offsets WHERE topic = %s AND partition = %s AND generation = %s
