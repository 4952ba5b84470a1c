"""Write the pages of docs/ that are derived from declarations in the code."""

from pathlib import Path

from fairbeam.generation.options_page import options_page

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    (DOCS / "options.md").write_text(options_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
