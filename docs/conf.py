"""The configuration of Sphinx; `make docs` builds the site into build/docs."""

import kern_nb

project = "kern_nb"
author = "kern_nb authors"
project_copyright = author
version = release = kern_nb.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["images"]
html_title = f"kern_nb {release}"

# Links of docs/magics.md and docs/columns.md point at headings.
myst_heading_anchors = 3

default_role = "code"  # docstrings write `name` for code

autodoc_member_order = "alphabetical"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields are documented once, in the docstring of their class
