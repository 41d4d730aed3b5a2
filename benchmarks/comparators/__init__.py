"""What our figures stand beside: the architecture this service replaces, and servers that do nothing. Measured, never shipped."""
