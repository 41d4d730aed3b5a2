"""`triggers doctor`: looks at everything a running system rests on, changes nothing, and says of each finding what to do."""
