"""The training loop, what it is made of, and whom it tells."""
