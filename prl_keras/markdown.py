"""Pieces of Markdown in which a user's words stay words."""

import re
from collections.abc import Sequence

_MOST_NAMES = 20


def plain(text: str) -> str:
    """A user's word, without meaning in Markdown, on one line. `pipe_table` sees to the rules of a table."""
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character, which no file can hold
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#!&~" else c for c in " ".join(text.split()))


def listed(names: Sequence[str], where: str) -> str:
    """Words in a sentence; of more than a reader would read the first, and where the others are."""
    more = f", and {len(names) - _MOST_NAMES:,} more ({where})" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(plain, names[:_MOST_NAMES])) + more


def indented(text: str) -> str:
    """A block of code: every line indented, as a quoted word of a command may have several."""
    return "    " + re.sub(r"(\r\n|\r|\n)", r"\1    ", text)


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Cells are Markdown; columns are aligned right, but for those of `left`."""
    rule = [":---" if column in left else "---:" for column in range(len(head))]
    lines = [map(_cell, head), rule, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
