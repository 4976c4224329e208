"""Turn npm's packages emoji-datasource-VENDOR into folders of pictures, with vendors as domains.

    npm pack emoji-datasource-google@16 emoji-datasource-twitter@16
    python benchmarks/emoji.py emoji/ emoji-datasource-google-16.0.0.tgz emoji-datasource-twitter-16.0.0.tgz

writes emoji/categories/<vendor>/<category>/*.png, for `--domains` with nine or so classes, and emoji/names/ with
labels.csv, in which each emoji is a class of its own with one picture of each vendor. Only emoji that all vendors draw
are taken, without skin tones. One emoji in twenty lends a picture to validation and another one to test, of one vendor
after the other, so that a training has both.

Pictures: Google's Noto, Apache-2.0; Twitter's Twemoji, CC-BY 4.0. Nothing of them is in this repository.
"""

import argparse
import csv
import json
import re
import sys
import tarfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prl_keras.errors import InputError
from prl_keras.files import atomic_folder, make_folder
from prl_keras.terminal import quoted

_PIXELS = 64
_KEYS = {"short_name", "unified", "image", "category"}  # of each in emoji.json
_EACH = 20  # one emoji in so many lends a picture to validation, and one to test


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("packages", type=Path, nargs="+", help="emoji-datasource-VENDOR-*.tgz, two or more")
    options = parser.parse_args(words)
    try:
        _write(options.out, options.packages)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _write(out: Path, packages: list[Path]) -> None:
    """All of it or nothing."""
    if out.exists():
        raise InputError(f"{out} is there already; name another folder")
    vendors = {_vendor(package): _read(package) for package in packages}
    if len(vendors) < 2:
        raise InputError("two vendors at least: emoji-datasource-google and emoji-datasource-twitter")
    emoji = _drawn_by_all(vendors)
    if not emoji:
        raise InputError(f"there is no emoji of which each package has a picture of {_PIXELS} pixels")
    make_folder(out.parent)
    with atomic_folder(out) as draft:
        _write_categories(draft / "categories", emoji, vendors)
        _write_names(draft / "names", emoji, vendors)
    print(f"{len(emoji):,} emoji of {', '.join(vendors)}")
    print(f"Next: python main.py pretrain --dataset {quoted([str(out / 'categories')])} --domains --image-size 32")


def _vendor(package: Path) -> str:
    found = re.match(r"emoji-datasource-([a-z]+)-", package.name)
    if not found:
        raise InputError(f"{package}: expected emoji-datasource-VENDOR-VERSION.tgz, a name as `npm pack` gives it")
    return found[1]


def _read(package: Path) -> tuple[list[dict], dict[str, bytes]]:
    """What emoji.json says, and pictures by their file's name."""
    folder = f"package/img/{_vendor(package)}/{_PIXELS}/"
    try:
        with tarfile.open(package) as archive:
            about = json.load(archive.extractfile("package/emoji.json"))
            members = [m for m in archive if m.isfile() and m.name.startswith(folder)]
            pictures = {m.name.removeprefix(folder): archive.extractfile(m).read() for m in members}
        if not all(set(each) >= _KEYS for each in about):
            raise ValueError("its emoji.json is of another kind")
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{package} cannot be read as a package of emoji-datasource: {error}") from error
    return about, pictures


def _drawn_by_all(vendors: dict[str, tuple[list[dict], dict[str, bytes]]]) -> list[dict]:
    """Of the first package's list those that every vendor has a picture of, in their code points' order."""
    about = next(iter(vendors.values()))[0]
    taken = [
        each
        for each in about
        if each["category"] != "Component"
        and all(each.get(f"has_img_{vendor}") and each["image"] in files for vendor, (_, files) in vendors.items())
    ]
    return sorted(taken, key=lambda each: each["unified"])


def _write_categories(root: Path, emoji: list[dict], vendors: dict) -> None:
    for vendor, (_, files) in vendors.items():
        for each in emoji:
            folder = root / vendor / each["category"].replace("&", "and")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / each["image"]).write_bytes(files[each["image"]])


def _write_names(root: Path, emoji: list[dict], vendors: dict) -> None:
    rows, names = [], list(vendors)
    for number, each in enumerate(emoji):
        lent = {0: "val", _EACH // 2: "test"}.get(number % _EACH, "train")
        lender = names[number // _EACH % len(names)]
        for vendor, (_, files) in vendors.items():
            folder = root / vendor
            folder.mkdir(parents=True, exist_ok=True)
            (folder / each["image"]).write_bytes(files[each["image"]])
            split = lent if vendor == lender else "train"
            rows.append((f"{vendor}/{each['image']}", each["short_name"], split, vendor))
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "domain"), *rows])


if __name__ == "__main__":
    sys.exit(main())
