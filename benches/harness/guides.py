"""The files that guides show: a fenced block after `<!-- file: NAME -->` is that file, to the letter.

So what a reader copies is what is tested and run.
"""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "docs" / "guides"

_FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of(guide: str) -> dict[str, str]:
    """Return the files of a guide by their names."""
    text = (GUIDES / f"{guide}.md").read_text()
    found = _FILE.findall(text)
    if len(found) != text.count("<!-- file: "):
        raise ValueError(f"{guide}.md names a file, and no block follows it")
    return dict(found)
