"""Print the README's command of a kind: ``python ci/readme_command.py train``."""

import re
import sys
from pathlib import Path

PARTS = {"train": "&& python -m agnostic_xent train", "ranks": "mpiexec", "test": "-m pytest"}

readme = (Path(__file__).parent.parent / "README.md").read_text()
(command,) = (
    block.strip()
    for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    if PARTS[sys.argv[1]] in block
)
print(command)
