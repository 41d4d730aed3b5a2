"""Who may call, and how much: organizations, API keys, endpoints as registered, secrets, audit, and problems as HTTP answers."""
