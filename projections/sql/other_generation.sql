-- A generation other than ours that something was folded from.
SELECT generation FROM projection_offsets WHERE generation <> %s AND next_offset > 0 LIMIT 1
