"""One file of HTML from plain values: style, script and data inside, nothing is fetched, no text becomes markup."""

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from prl_keras.errors import InputError
from prl_keras.files import write_text

MARK = '<meta name="generator" content="prl-keras report">'
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page_of(title: str, data: dict[str, Any], sheets: list[str]) -> str:
    """The template, filled in one go, so that nothing in a filled-in text is taken for a place to fill.

    The page forbids itself every script but its own, and every connection.

    Args:
        data: for page.js; any text, no infinities.
        sheets: data URIs, which become the classes s0, s1, ...
    """
    template, style, script = (_part(name) for name in ("page.html", "page.css", "page.js"))
    pictures = "\n".join(f'.s{i}{{background-image:url("{uri}")}}' for i, uri in enumerate(sheets))
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "mark": MARK,
        "style": f"{style}\n{pictures}",
        "script": script,
        "script_sha": f"sha256-{sha}",
        "data": as_script(data),
    }
    return _PLACE.sub(lambda place: parts[place[1]], template)


def as_script(data: Any) -> str:
    """JSON that can stand in a <script>: it has no "<", so no text can close that or open a comment."""
    content = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return content.replace("<", "\\u003c")


def check_replaceable(file: Path) -> None:
    """Raise InputError if there is something at `file` that is no earlier page."""
    if not file.exists() and not file.is_symlink():
        return
    if not file.is_file() or MARK.encode() not in file.open("rb").read(1000):
        raise InputError(f"{file}: not a page that `report` wrote; move it away, then repeat the command")


def write_page(file: Path, title: str, data: dict[str, Any], sheets: list[str]) -> Path:
    """Atomic; an earlier page is replaced."""
    check_replaceable(file)
    write_text(file, page_of(title, data, sheets))
    return file


def _part(name: str) -> str:
    return files("prl_keras.reports").joinpath(name).read_text(encoding="utf-8")
