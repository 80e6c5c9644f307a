# SPDX-License-Identifier: BSD-3-Clause
"""The examples of the README and of the pages in docs/ run pasted as they stand, and their links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))] if README.exists() else []
pytestmark = pytest.mark.skipif(not PAGES, reason="runs from the source tree only")


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


EXAMPLES = {f"{page.stem}-{i}": (page, text) for page in PAGES for i, text in enumerate(examples(page))}


@pytest.mark.parametrize(("page", "example"), EXAMPLES.values(), ids=EXAMPLES)
def test_example(page, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(example, page.name, "exec"), {"__name__": "__main__"})
    except ModuleNotFoundError as error:
        if error.name.startswith("fastconv"):
            raise
        pytest.skip(f"needs {error.name}")


def test_there_are_examples():
    assert len(examples(README)) >= 2


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_local_links_exist(page):
    if not (ROOT / "src").exists():
        pytest.skip("the tests alone, without the sources that pages point to")
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_extras_are_installed_from_the_sources():
    """There is no release: what pages and messages advise has to work without one, and to be there."""
    if not (ROOT / "src").exists():
        pytest.skip("the tests alone, without the project's metadata")
    named = set()
    texts = [*PAGES, ROOT / "CONTRIBUTING.md", *(ROOT / "benchmarks").glob("*.*"), *(ROOT / "src").rglob("*.py")]
    for page in texts:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\bfastconv\[", text), page
        for extras in re.findall(r'pip install (?:-e )?"\.\[([\w,]+)\]"', text):
            named.update(extras.split(","))
    assert {"demo", "test", "torch", "scipy", "dask"} <= named
    assert named <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
