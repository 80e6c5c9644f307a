# SPDX-License-Identifier: BSD-3-Clause
"""The examples of the README and of the pages in docs/ run pasted as they stand, and their links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest

from fastconv import _args
from fastconv.cli import main

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


def section(title: str) -> str:
    return README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_readme_says_what_there_is(capsys):
    """By name: what is told twice, here and by the code, is told alike."""
    inside = section("What is in it")
    for activation in filter(None, _args.ACTIVATIONS):
        assert activation in inside.lower()
    assert {f"`{name}`" for name in _args.ALGORITHMS} - {"`reference`"} <= set(re.findall(r"`\w+`", inside))
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+)  ", capsys.readouterr().out.partition("\ncommands:")[2], re.MULTILINE)
    assert set(re.findall(r"^ *\| `fastconv (\w+)", inside, re.MULTILINE)) == set(commands)


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Try it", ["apt install", "minute", "-m venv"]),
        ("What it is not for", ["GPUs", "Training", "int8"]),
        ("Where it runs", ["CPython 3.11", "Linux", "macOS", "Windows", "FASTCONV_NUM_THREADS", "set_num_threads"]),
    ],
)
def test_readme_answers_what_newcomers_ask(title, words):
    text = section(title)
    assert [word for word in words if word not in text] == []
