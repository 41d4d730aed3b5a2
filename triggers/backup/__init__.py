"""Backup and restore: the control plane and the log, as files that can be checked without any server."""
