"""The operations: each one a contract, a portable definition and its pullback."""
