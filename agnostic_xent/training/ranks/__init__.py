"""Training on several ranks: who has which samples, and sums over all of them."""
