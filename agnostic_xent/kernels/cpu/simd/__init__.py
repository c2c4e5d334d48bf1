"""What loops are made of: vectors, tiles, rows, elementary functions, products of matrices."""
