-- Of loaded rows that agree in what may be there once, those of the lowest position stay.
DELETE FROM {table} t
USING (SELECT ctid AS row, rank() OVER (PARTITION BY {once} ORDER BY {order}) AS place FROM {table}) ranked
WHERE t.ctid = ranked.row AND ranked.place > 1
