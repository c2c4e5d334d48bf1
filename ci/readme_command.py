"""Print the README's command that contains a word: ``python ci/readme_command.py train``."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text()
(command,) = (
    block.strip()
    for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    if {"train": "agnostic_xent train\n", "test": "-m pytest"}[sys.argv[1]] in block
)
print(command)
