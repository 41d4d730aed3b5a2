"""The write side of the API: authenticate, validate, reserve, append, answer. Nothing here reads what was written."""
