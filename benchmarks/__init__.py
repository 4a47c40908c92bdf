"""Measurements of this project against what its speed is bounded by; never run by the tests."""
