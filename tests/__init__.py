"""sqlbak tests."""
