"""The composition root: command line, wiring of the processes, the local stack of real servers, replay and rebuild commands, and the
dashboard. Everything below is a library to it; nothing below imports it."""
