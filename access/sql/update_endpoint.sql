-- An endpoint as it was configured anew.
UPDATE control.endpoints
SET url = %(url)s, description = %(description)s, event_types = %(event_types)s, headers = %(headers)s,
    rate_per_minute = %(rate_per_minute)s, concurrency = %(concurrency)s, schedule = %(schedule)s, schedule_s = %(schedule_s)s,
    deadline_s = %(deadline_s)s, legacy_signature = %(legacy_signature)s, fifo = %(fifo)s, fifo_block = %(fifo_block)s, updated_at = now()
WHERE id = %(id)s
