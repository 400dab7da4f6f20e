"""Policies, their rules, and the calendar."""
