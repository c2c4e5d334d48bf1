"""Losses: cross entropy over classes, and binary losses."""
