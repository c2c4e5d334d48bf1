"""From a Python function to a launch: machine code, devices, dtypes, instructions, teams."""
