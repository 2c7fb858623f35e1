"""The site, by Sphinx: `make docs` builds it into build/docs/html, and fails on any warning.

What is generated in the sources' folder on the way (pages of the API, of galleries, of results) lies in docs/generated.
"""

import os
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# Pages are executed on a CPU and draw into files.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import repository_pages

project = "hebbax"
author = "the hebbax developers"
copyright = f"{author}, Apache-2.0"
version = release = metadata.version("hebbax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "repository_pages",
]
templates_path = ["_templates"]
exclude_patterns = ["_ext", "_templates", "tutorials", "experiments", "**/*.ipynb", "**/*.md5"]
default_role = "py:obj"  # as the docstrings have it: a link where it names something, else code

html_theme = "furo"
html_title = f"hebbax {version}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_context = {"uses": repository_pages.uses(), "makers": repository_pages.MAKERS}
autodoc_typehints = "none"  # shapes, dtypes and units are in the docstrings, which types cannot say
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False  # words of types, "shape" say, are no names to look up
napoleon_custom_sections = [("Attributes", "params_style")]  # nor are they here
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": ["tutorials", "experiments"],
    "gallery_dirs": ["generated/tutorials", "generated/experiments"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("hebbax",),
    "reference_url": {"hebbax": None},
    "image_scrapers": ("figures", "matplotlib"),  # which closes what it has saved
    "abort_on_example_error": True,
    "capture_repr": (),
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
}
