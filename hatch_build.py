"""The description of the package: README.md without pictures and links to files of the repository.

An index shows the description alone, where neither could be found.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"^!\[(?P<text>[^\]]*)\]\((?!\w+://)[^)]*\)\n+", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!\w+://|#)[^)]*\)")


def description(readme: str) -> str:
    """The text without pictures that are files, and with the words of links to files alone."""
    return _LINK.sub(lambda found: found["text"], _PICTURE.sub("", readme))


class Readme(MetadataHookInterface):
    """Sets the field ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the description in; hatchling calls this."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(text)}
