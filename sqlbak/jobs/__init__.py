"""Use cases: each joins policy, engine and vault for one purpose."""
