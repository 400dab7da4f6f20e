"""The long-running service: what is due, and who does it."""
