-- The live fold of accepted events goes on from the shadow's highest ingested offset.
UPDATE {live}.projection_offsets l SET ingested_high = s.ingested_high
FROM {shadow}.projection_offsets s
WHERE s.topic = l.topic AND s.partition = l.partition AND s.generation = l.generation AND s.ingested_high <> l.ingested_high
