"""Real Kafka, PostgreSQL and Redis on this machine without Docker or root: servers from wheels and jars, run as children of ours, their
data in one state folder. For development, tests and demonstrations; it refuses to be a deployment (one broker, one disk, loopback only)."""
