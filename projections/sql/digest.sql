-- Count and digest of a table's rows, by organization and mode, in the order of their key. A digest of digests of chunks, so that memory does
-- not grow with the rows; OFFSET 0 keeps the rows themselves out of the sort.
SELECT organization, mode, sum(rows)::int8, sha256(string_agg(digest, ''::bytea ORDER BY chunk))
FROM (
    SELECT organization, mode, chunk, count(*) AS rows, sha256(string_agg(hash, ''::bytea ORDER BY place)) AS digest
    FROM (
        SELECT organization, mode, hash, place, (place - 1) / 4096 AS chunk
        FROM (
            SELECT organization, mode, hash, row_number() OVER (PARTITION BY organization, mode ORDER BY {key}) AS place
            FROM (SELECT organization, mode, {key}, sha256(record_send(t)) AS hash FROM ({rows}) t OFFSET 0) hashed
        ) placed
    ) chunked
    GROUP BY organization, mode, chunk
) chunks
GROUP BY organization, mode
