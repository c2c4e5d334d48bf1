"""Activations: elements, and rows of classes."""
