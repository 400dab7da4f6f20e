"""What should exist: policy files, their rules, and the calendar of due slots."""
