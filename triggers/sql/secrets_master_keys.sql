-- Which master keys the secrets of endpoints and the data keys are encrypted under.
SELECT master_key_id FROM control.endpoint_secrets UNION SELECT master_key_id FROM control.data_keys ORDER BY master_key_id
