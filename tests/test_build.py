# SPDX-License-Identifier: BSD-3-Clause
"""What setup.py says before it builds: the sentence for each thing that may be missing, the metadata, the archive."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path

import pytest

from fastconv import _args

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="runs from the source tree only"),
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="gcc on Linux is made to fail"),
]


@pytest.fixture
def setup(tmp_path):
    """A function that runs a command of a copy of setup.py, away from what was built in the tree."""
    tree = tmp_path / "tree"
    tree.mkdir()
    made = {".git", "build", "dist", "src"}
    for path in ROOT.iterdir():
        if path.name not in made:
            (tree / path.name).symlink_to(path)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))

    def run(*command, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FASTCONV_", "CC", "CFLAGS"))}
        return subprocess.run(
            [sys.executable, "setup.py", *command],
            cwd=tree,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def compiler_without(tmp_path):
    """A function that makes a gcc which does not find a header."""

    def make(header):
        script = tmp_path / "cc"
        script.write_text(
            "#!/bin/sh\n"
            f'for f; do case $f in *.c) grep -q "<{header}>" "$f" && {{ '
            f'echo "$f:1:10: fatal error: {header}: No such file or directory" >&2; exit 1; }};; esac; done\n'
            'exec gcc "$@"\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


BEFORE_BUILDING = [["dist_info", "--output-dir", ".."], ["bdist_wheel"], ["build_ext", "--inplace"]]


@pytest.mark.parametrize("command", BEFORE_BUILDING, ids=[command[0] for command in BEFORE_BUILDING])
def test_no_compiler(setup, command):
    result = setup(*command, CC="/nowhere/cc")
    assert result.returncode != 0
    assert result.stdout == ""  # nothing was copied, nothing was compiled
    [sentence] = result.stderr.strip().splitlines()
    assert sentence.startswith("error: fastconv cannot be built without a C compiler (gcc or clang); install it with: ")
    assert "'/nowhere/cc' is not there" in sentence


@pytest.mark.parametrize(
    ("header", "what", "package"),
    [
        ("stdlib.h", "the headers of the C library", "libc6-dev"),
        ("Python.h", f"Python.h, the header of Python {sys.version_info.major}.", "python3-dev"),
        ("omp.h", "OpenMP, which this compiler lacks", "libomp-dev"),
    ],
)
def test_no_header(setup, compiler_without, header, what, package):
    result = setup("dist_info", "--output-dir", "..", CC=compiler_without(header))
    assert result.returncode != 0
    assert result.stdout == ""
    [sentence] = result.stderr.strip().splitlines()
    assert sentence.startswith(f"error: fastconv cannot be built without {what}")
    assert f"fatal error: {header}" in sentence
    if re.search(r"^ID(_LIKE)?=.*debian", Path("/etc/os-release").read_text(), flags=re.MULTILINE):
        assert f"install it with: apt install {package}" in sentence
        assert "dnf" not in sentence
    else:
        assert package in sentence or "dnf" in sentence or "apk" in sentence


def test_one_thread_is_a_choice(setup, compiler_without):
    lacking = compiler_without("omp.h")
    assert "FASTCONV_DISABLE=openmp" in setup("dist_info", "--output-dir", "..", CC=lacking).stderr
    result = setup("dist_info", "--output-dir", "..", CC=lacking, FASTCONV_DISABLE="openmp")
    assert result.returncode == 0, result.stderr


def test_an_unknown_part_is_an_error(setup):
    result = setup("dist_info", "--output-dir", "..", FASTCONV_DISABLE="avx512,sse2")
    assert result.returncode != 0
    assert result.stderr.strip().splitlines()[-1] == (
        "error: FASTCONV_DISABLE names ['sse2']; it may name avx2, avx512, neon, openmp"
    )


def test_archives_need_no_compiler(setup):
    assert setup("--quiet", "egg_info", "--egg-base", "..", CC="/nowhere/cc").returncode == 0


def test_metadata(setup, tmp_path):
    result = setup("dist_info", "--output-dir", "..")
    assert result.returncode == 0, result.stderr
    [path] = tmp_path.glob("*.dist-info/METADATA")
    metadata = message_from_string(path.read_text(encoding="utf-8"))
    text = metadata.get_payload()
    assert text.startswith("# fastconv\n")
    assert text.count("```") >= 6  # the examples are there
    # Readers elsewhere have no files beside it: what is left leads to the web.
    assert [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")] == []
    assert "docs/images" not in text
    python = {c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") if " Python :: 3." in c}
    assert python == {"3.11", "3.12", "3.13", "3.14"}


def test_every_pattern_of_the_manifest_matches(setup):
    result = setup("egg_info", "--egg-base", "..")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if "found" in line and "matching" in line] == []


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="git knows what there is")
def test_the_archive_holds_what_git_has(setup, tmp_path):
    assert setup("--quiet", "sdist", "--dist-dir", "..").returncode == 0
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    listed = subprocess.run(["git", "ls-files", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()}
    assert tracked - packed == {".github/workflows/ci.yml", ".gitignore"}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in packed - tracked if ".egg-info/" not in name} == made


def test_the_same_archive_twice(setup, tmp_path):
    made = []
    for folder, mask in (("one", 0o022), ("two", 0o077)):
        before = os.umask(mask)
        try:
            result = setup("--quiet", "sdist", "--dist-dir", f"../{folder}", SOURCE_DATE_EPOCH="1700000000")
        finally:
            os.umask(before)
        assert result.returncode == 0, result.stderr
        [archive] = (tmp_path / folder).iterdir()
        made.append(archive.read_bytes())
    assert made[0] == made[1]


def test_the_binding_is_translated_again_when_a_part_of_it_changes(monkeypatch):
    dependencies = pytest.importorskip("Cython.Build.Dependencies")
    monkeypatch.chdir(ROOT)
    parts = {str(path) for path in Path("src/fastconv").glob("_core*.p[xy][xdi]")} - {"src/fastconv/_core.pyi"}
    assert len(parts) > 6
    found = dependencies.create_dependency_tree(quiet=True).all_dependencies("src/fastconv/_core.pyx")
    assert parts == {path for path in found if not os.path.isabs(path)}


def test_a_problem_has_the_fields_of_the_header():
    """The binding takes them by name, so that one which is missing on one side only is an error on the other."""
    header = (ROOT / "csrc/problem.h").read_text()
    struct = re.search(r"typedef struct fc_problem \{(.*?)\} fc_problem;", header, re.DOTALL)[1]
    declarations = re.findall(r"^\s*\w+ ([\w, ]+?)(?:\[\w+\])?;", struct, re.MULTILINE)
    names = [name for declaration in declarations for name in declaration.split(", ")]
    assert sorted(names) == sorted(_args.Fields._fields)
    taken = set(re.findall(r"\bfields\.(\w+)", (ROOT / "src/fastconv/_core_plans.pxi").read_text()))
    assert taken == set(names)
