-- A partition seen for the first time starts at 0.
INSERT INTO projection_offsets (topic, partition, generation, next_offset) VALUES (%s, %s, %s, 0) ON CONFLICT DO NOTHING
