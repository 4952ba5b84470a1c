"""Draw ``docs/architecture.svg`` from the import rules in ``pyproject.toml`` and the packages' first sentences.

usage: python scripts/draw_architecture.py [--check]
"""

import ast
import sys
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/architecture.svg"
WIDTH, MARGIN, GAP, BOX, LINE = 960, 16, 12, 62, 15
LAYERS = "Doors open one way"
"""The name of the import rule whose layers are drawn."""


def first_sentence(module: str) -> str:
    """Return the first sentence of a package's or a module's docstring, without markup."""
    path = ROOT / "user_dir" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n", 1)[0].replace("\n", " ").replace("``", "").rstrip(".")


def layers() -> list[list[str]]:
    """Return the layers of the import rule, topmost first, each a list of modules."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (rule,) = (rule for rule in rules if rule["name"] == LAYERS)
    return [[name.strip() for name in layer.split(":")] for layer in rule["layers"]]


def room(x: float, y: float, width: float, name: str, text: str, colour: str) -> str:
    """Return one box with its name and one to three lines of text."""
    lines = textwrap.wrap(text, max(16, int(width / 6.1)))[:3]
    rows = "".join(
        f'<text x="{x + 10:.0f}" y="{y + 34 + i * (LINE - 3)}" class="s">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX}" rx="6" fill="{colour}"/>'
        f'<text x="{x + 10:.0f}" y="{y + 18}" class="n">{escape(name)}</text>{rows}'
    )


def picture() -> str:
    """Return the SVG: a row for each layer, the plugin above them."""
    rows = [["fairbeam_plugin"], *([f"fairbeam.{name}" for name in layer] for layer in layers())]
    parts, y = [], MARGIN
    for number, row in enumerate(rows):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        for place, module in enumerate(row):
            name = module.removeprefix("fairbeam.") if number else "fairbeam_plugin (fairseq's user-dir)"
            colour = "#f6e3c5" if number == 0 else f"hsl({210 - 8 * number}, 45%, 92%)"
            parts.append(room(MARGIN + place * (width + GAP), y, width, name, first_sentence(module), colour))
        y += BOX + GAP
    style = ".n{font:600 14px sans-serif;fill:#123}.s{font:11.5px sans-serif;fill:#345}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - GAP + MARGIN}" role="img">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def main() -> int:
    """Write the picture, or with ``--check`` say whether the one in ``docs`` is current."""
    drawn = picture()
    if "--check" in sys.argv[1:]:
        current = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawn
        if not current:
            print(f"{PICTURE.relative_to(ROOT)}: not what scripts/draw_architecture.py draws; run make docs")
        return 0 if current else 1
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
