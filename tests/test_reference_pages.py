"""docs/reference/ is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reference

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", reference.ALL)
def test_page_is_as_the_code_has_it(name: str) -> None:
    assert (reference.PAGES / name).read_text() == reference.ALL[name](), "run: python scripts/reference.py"


def test_links_lead_somewhere() -> None:
    """Of all pages, to files and to headings."""
    broken = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
