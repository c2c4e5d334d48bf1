"""Layers, networks made of them, and how their parameters are stored and exchanged."""
