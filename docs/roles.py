"""Docstrings as the site shows them: a Griffe extension that turns what they have of reStructuredText into Markdown.

Roles such as ``:class:`` and tables of ``===`` become code, ``::`` becomes a colon. Griffe only reads the sources: no
torch is imported to build the site.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?:~[\w.]*\.)?(?P<name>[\w.]+)`")
_TABLE = re.compile(r"^(?P<rule>=+(?: +=+)+)\n.*?\n(?P=rule)(?=\n\n|\Z)", re.M | re.S)


def to_markdown(text: str) -> str:
    """Return a docstring with roles, tables and ``::`` in Markdown."""
    text = _TABLE.sub(lambda m: "```text\n" + m[0] + "\n```", text)
    text = _ROLE.sub(r"`\g<name>`", text)
    return re.sub(r"::$", ":", text, flags=re.M)


class Roles(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
