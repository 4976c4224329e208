"""Names that users chose, as pictures and tables of one line a row can show them: whole text, never a formula."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

_ELLIPSIS, _NO_GLYPH, _EMPTY = "…", "□", "(no name)"
# DejaVu Sans comes with Matplotlib and lacks what most of the world writes; the first of these that a system has help.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Emoji", "Unifont"),
)


def one_line(text: str) -> str:
    """Without line breaks, tabs, control characters, and characters that only steer the writing's direction."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join("".join(c for c in kept if unicodedata.category(c) != "Cf").split())


def shortened(text: str, most: int) -> str:
    """At most that many characters: the middle goes, since names differ at either end."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}{_ELLIPSIS}{text[len(text) - tail :]}"


def distinct(texts: Sequence[str]) -> list[str]:
    """Those that occur again get a number."""
    taken, seen, fresh = set(texts), Counter(), []
    for text in texts:
        seen[text] += 1
        name = text
        while seen[text] > 1 and (name := f"{text} ({seen[text]})") in taken:
            seen[text] += 1
        taken.add(name)
        fresh.append(name)
    return fresh


def drawable(text: str, most: int = 100) -> str:
    """One short line of characters that a font of this system has."""
    glyphs = _glyphs()
    return shortened("".join(c if ord(c) in glyphs else _NO_GLYPH for c in one_line(text)), most)


def class_labels(class_names: Sequence[str], most: int = 24) -> list[str]:
    """For ticks and legends: short, none empty, no two alike."""
    return distinct([drawable(name, most) or _EMPTY for name in class_names])


@cache
def font_families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FONTS if name in installed))


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = (findfont(FontProperties(family=name)) for name in font_families())
    return frozenset(code for file in files for code in get_font(file).get_charmap())
