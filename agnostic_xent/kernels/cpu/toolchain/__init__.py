"""From a Python function to machine code, threads and memory."""
