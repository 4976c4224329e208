"""Markdown to one HTML page that opens without a network."""

import base64
import html
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 1200px; margin: 0 auto; padding: 1.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
nav { font-size: .9rem; } nav a { margin-right: 1rem; }
p { max-width: 52rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .22rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { position: sticky; top: 0; background: Canvas; white-space: normal; vertical-align: bottom; }
tbody tr:hover { background: var(--soft); }
p:has(img) { max-width: none; }
img { max-width: 100%; background: white; border-radius: 4px; }
code, pre { background: var(--soft); border-radius: 3px; padding: .1rem .3rem; }
pre { padding: .6rem .9rem; overflow-x: auto; }
pre code { background: none; padding: 0; }
"""


def to_html(text: str, folder: Path) -> str:
    """One page: headings get anchors, pictures of `folder` are put into the page, HTML in the text stays text.

    A picture that is not a PNG or SVG file in the folder is left as its caption: nothing is fetched from elsewhere.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    links, title = [], ""
    for at, token in enumerate(tokens):
        heading = _words(tokens[at + 1]) if token.type == "heading_open" else ""
        title = title or heading
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", heading.lower().replace(" ", "-"))
            links.append(f'<a href="#{html.escape(token.attrGet("id"))}">{html.escape(heading)}</a>')
        for child in token.children or ():
            if child.type == "image" and (source := _inline(folder, str(child.attrGet("src")))):
                child.attrSet("src", source)
            elif child.type == "image":
                child.type, child.tag = "text", ""
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    first, end, rest = body.partition("</h1>")
    title = html.escape(title or "report")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body>\n{first}{end}\n<nav>{''.join(links)}</nav>\n{rest}</body></html>\n"
    )


def _words(heading: Any) -> str:
    return " ".join("".join(child.content or " " for child in heading.children).split())


def _inline(folder: Path, source: str) -> str | None:
    file = folder / unquote(source)
    try:
        within = file.resolve().is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError):  # no name that a file could have
        return None
    if file.suffix not in _MEDIA or not within:
        return None
    return f"data:{_MEDIA[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
