"""Convolution as products of matrices that are gathered by a table."""
