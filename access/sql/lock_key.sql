-- Hold one API key against other changes until the transaction ends; also the time of the transaction, in Unix milliseconds.
SELECT (extract(epoch FROM now()) * 1000)::bigint FROM control.api_keys WHERE id = %(id)s FOR NO KEY UPDATE
