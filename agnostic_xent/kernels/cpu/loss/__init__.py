"""Losses: cross entropy over classes, and binary cross entropy."""
