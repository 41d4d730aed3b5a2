"""What travels: ids, record types, topics, keys, problems and their encodings.

Pure: no I/O, no clock, no settings, no randomness of its own. Everything else may import it; it imports nothing of ours.
"""
