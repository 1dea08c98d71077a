"""The pages: Markdown by MyST, the reference from docstrings, the look by furo."""

import elsa_ext

project = "elsa-ext"
author = "The elsa-ext authors"
copyright = author
release = elsa_ext.__version__.partition("+")[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx_copybutton"]
default_role = "py:obj"  # `ELSA` in a docstring is a link
# Every name of ours must be found; those of torch, timm and Python are not looked up.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!elsa_ext\b).*\..*|elsa_ext\.models\.convert\.Model")]

# The pages are also read where they lie, as plain Markdown: what Sphinx alone knows is in index.md and api/.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "exclude-members": "forward, extra_repr"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "elsa-ext"
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
