-- Events that have just come and that nobody acknowledged.
COPY unacked (organization, mode, generation, position, event_id, type) FROM STDIN (FORMAT BINARY)
