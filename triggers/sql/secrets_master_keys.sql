-- Which master keys the secrets of endpoints are encrypted under.
SELECT DISTINCT master_key_id FROM control.endpoint_secrets ORDER BY master_key_id
