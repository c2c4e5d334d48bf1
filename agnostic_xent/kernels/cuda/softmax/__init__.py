"""Softmax and log_softmax."""
