"""Pools: maxima and means of windows."""
