"""The network's side of "the network knows no search"; its imports are checked by import-linter."""

import re
from pathlib import Path

from fairbeam import network


def test_nothing_in_the_network_is_named_after_a_search():
    named = re.compile(r"^\s*(?:def|class)\s+(\w*(?:search|hypothes|candidate)\w*)", re.MULTILINE | re.IGNORECASE)
    sources = sorted(Path(network.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    assert [name for source in sources for name in named.findall(source.read_text(encoding="utf-8"))] == []
