"""Tests of sqlbak."""
