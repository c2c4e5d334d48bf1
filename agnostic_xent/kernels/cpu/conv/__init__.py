"""Convolution: direct and Winograd, forward and backward."""
