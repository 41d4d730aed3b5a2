-- Where every fold of some topics stands.
SELECT topic, partition, next_offset, ingested_high FROM {schema}.projection_offsets WHERE generation = {generation} AND topic = ANY(%s)
