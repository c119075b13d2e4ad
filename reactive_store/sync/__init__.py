"""Live sessions: the messages, one client's state, and what drives it."""
