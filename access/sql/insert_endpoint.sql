-- A new webhook endpoint.
INSERT INTO control.endpoints (id, organization, mode, url, description, event_types, headers, rate_per_minute, concurrency, schedule,
                               schedule_s, deadline_s, legacy_signature, fifo, fifo_block)
VALUES (%(id)s, %(organization)s, %(mode)s, %(url)s, %(description)s, %(event_types)s, %(headers)s, %(rate_per_minute)s, %(concurrency)s,
        %(schedule)s, %(schedule_s)s, %(deadline_s)s, %(legacy_signature)s, %(fifo)s, %(fifo_block)s)
