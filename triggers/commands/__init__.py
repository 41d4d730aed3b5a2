"""One module per group of commands. Each prints for people, or JSON with `--json`, and exits 1 with one line that says what to do."""
