r"""What the site does to text: formulas are drawn, docstrings made such as its parser understands.

LaTeX becomes MathML while the site is built, which browsers draw by themselves. Pages write ``$x$``
and ``$$x$$``, docstrings ``:math:`x``` and ``.. math::``; the Markdown extension arithmatex keeps
both from being read as Markdown, as ``\(x\)`` and ``\[x\]``.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
_LIMITS = re.compile(r"\\(min|max|sup|inf)_")
_ROLE = re.compile(r":math:`([^`]+)`")
_SHARED = re.compile(r"^((?:\w+, )+\w+)\n((?: {4}.*(?:\n|$))+)", re.MULTILINE)
_CHOICE = re.compile(r"^((?:\w+, )*\w+ : )\{(.+?)\}", re.MULTILINE)
_DIRECTIVE = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*| *$))*)", re.MULTILINE)


def on_page_content(content: str, **_: Any) -> str:
    """Draw the formulas of a page; mkdocs calls this once it is HTML."""
    content = _INLINE.sub(lambda found: _mathml(found[1], "inline"), content)
    return _DISPLAY.sub(
        lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', content
    )


def _mathml(formula: str, display: str) -> str:
    formula = html.unescape(formula).strip()
    if display == "block":
        formula = _LIMITS.sub(r"\\\1\\limits_", formula)  # under the word, not beside it
    return convert(formula, display=display)


class Docstrings(griffe.Extension):
    """Makes the formulas of docstrings those of pages; mkdocstrings calls it.

    The parser would give parameters that share a description without a type the type and the
    default of the first, and take the first of ``{"Linf", "L2"}`` for a default.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is None:
            return
        text = _ROLE.sub(r"\\(\1\\)", obj.docstring.value)
        text = _DIRECTIVE.sub(_display, text)
        text = _SHARED.sub(_apart, text)
        obj.docstring.value = _CHOICE.sub(_either, text)


def _apart(found: re.Match[str]) -> str:
    return "".join(f"{name}\n{found[2]}" for name in found[1].split(", "))


def _either(found: re.Match[str]) -> str:
    return found[1] + " or ".join(found[2].split(", "))


def _display(found: re.Match[str]) -> str:
    formula = " ".join(textwrap.dedent(found[2]).split())
    return f"\n{found[1]}\\[{formula}\\]\n"
