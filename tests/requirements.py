"""requirements.txt and requirements-dev.txt, written from pyproject.toml: `python tests/requirements.py`."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = "# Written from pyproject.toml by tests/requirements.py: change them there.\n"
# A clone has an environment of its own, so nobody's GPU is lost to the smaller package.
SMALLER = """\
# The smaller one where there is one. For an NVIDIA GPU: pip install ".[cuda]", in an environment without these.
tensorflow-cpu{0}; platform_machine == "x86_64" or platform_machine == "AMD64"
tensorflow{0}; platform_machine != "x86_64" and platform_machine != "AMD64"
"""


def texts() -> dict[str, str]:
    """What each file has to say, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tools = [line for name in extras["dev"] for line in extras.get(_extra_of(name), [name])]
    return {
        "requirements.txt": HEAD + "".join(map(_line, project["dependencies"])),
        "requirements-dev.txt": f"{HEAD}-r requirements.txt\n" + "".join(map(_line, tools)),
    }


def _line(requirement: str) -> str:
    tensorflow = re.fullmatch(r"tensorflow([=<>~!].*)", requirement)
    return SMALLER.format(tensorflow[1]) if tensorflow else f"{requirement}\n"


def _extra_of(requirement: str) -> str:
    """`export` of `prl-keras[export]`."""
    extra = re.fullmatch(r"prl-keras\[(\w+)\]", requirement)
    return extra[1] if extra else ""


if __name__ == "__main__":
    for name, text in texts().items():
        (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
