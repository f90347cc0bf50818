"""The site: `make docs` builds it into docs/_build; a warning is an error."""

import os
import tomllib
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
version = release = PROJECT["version"]
author = copyright = "the authors of export-lstm"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False
html_copy_source = False

myst_heading_anchors = 3  # links to headings work as they do in the repository

default_role = "code"  # the docstrings' backticks
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass's fields are described once, from its docstring
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}

nitpick_ignore_regex = [
    # Types of other projects: building the site reads nothing from the net, so nothing is linked there.
    (r"py:.*", r"(typing|collections|fractions|pathlib|numpy)\..*"),
    (r"py:.*", r"any|bool|float|int|str|optional|ArrayLike"),
    # Names of types that only say what an argument is; they are no API.
    (r"py:.*", r"(exporter|signatures)\..*\.(Array|Dim|Feeds|Role|Call|Progress|Extent|Choice|Dtype)"),
]
