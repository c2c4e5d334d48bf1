"""What all else rests on: the operation, arrays of any library, checks, geometry, ranks."""
