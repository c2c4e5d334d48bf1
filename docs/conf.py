"""Settings of the documentation: ``python -m sphinx -W docs build/docs``."""

import agnostic_xent
from agnostic_xent.core.operation import OPERATIONS

project = "agnostic_xent"
author = "the agnostic_xent developers"
version = release = agnostic_xent.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
templates_path = ["templates"]
html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False
myst_heading_anchors = 3
default_role = "py:obj"

autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# The button copies what is typed, without prompts and without what is printed.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Shown as the functions that they are called like.
for name, operation in OPERATIONS.items():
    if hasattr(agnostic_xent, name):
        setattr(agnostic_xent, name, operation.__wrapped__)
