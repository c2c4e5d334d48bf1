"""Pools over windows and planes."""
