"""The pages: Markdown by MyST, the reference from docstrings, the look by furo."""

from typing import Any

import elsa_ext
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

project = "elsa-ext"
author = "The elsa-ext authors"
copyright = author
release = elsa_ext.__version__.partition("+")[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
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

highlight_language = "text"  # blocks without a language are what a program prints

html_theme = "furo"
html_title = "elsa-ext"
html_static_path = ["_static"]
html_css_files = ["phone.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
html_math_renderer = "mathml"


def inline_formula(writer: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers show by themselves: MathJax would be fetched from somewhere."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def formula(writer: Any, node: nodes.math_block) -> None:
    """Write a formula that stands in a line of its own; one that is too wide is scrolled."""
    writer.body.append(f'<div class="math" style="overflow-x: auto">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
