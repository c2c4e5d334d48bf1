"""Linear models: products with sparse rows, and epochs of plain SGD."""
