#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A newcomer's first hour: the README's commands, as they stand, in an empty Debian 12.
#
#   tools/check_debian.sh [EXTRA...]      extras to install alone (default: all but lint, which is for this tree)
#
# Needs root, debootstrap, Debian's mirror (DEBIAN_MIRROR) and pip's index; leaves nothing behind. While compiler and
# headers arrive one by one, pip has to name the next one that is missing. Then `## Try it` of README.md: what begins
# with apt for root, the rest for a user. At last each extra alone, which has to do what it is for.
# PYTEST_ADDOPTS goes to the README's pytest, such as '-m "not slow"'. What pip is configured with here, it is there:
# PIP_CONSTRAINT=FILE, where FILE says torch==2.13.0, keeps it from gigabytes of a newer one.
set -euo pipefail

if [[ ${FASTCONV_NAMESPACE:-} != 1 ]]; then # mounts that end with this script
    [[ $(id -u) == 0 ]] || { echo "check_debian: needs root" >&2; exit 1; }
    FASTCONV_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
debian=$work/debian
home=/home/newcomer
lent=() # what of this machine is mounted there
cleanup() {
    umount "$debian/proc" "$debian/dev/shm" "${lent[@]}" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "check_debian: $*" >&2; exit 1; }
extras=("$@")
[[ ${#extras[@]} -gt 0 ]] || mapfile -t extras < <("${PYTHON:-python3}" - "$root/pyproject.toml" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*sorted(tomllib.load(file)["project"]["optional-dependencies"].keys() - {"lint"}), sep="\n")
PYTHON
)

echo "== an empty Debian 12"
debootstrap --variant=minbase bookworm "$debian" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/log" ||
    { tail "$work/log"; fail "debootstrap failed"; }
mount -t proc proc "$debian/proc"
mkdir -p "$debian/dev/shm"
mount -t tmpfs tmpfs "$debian/dev/shm"
echo 'APT::Get::Assume-Yes "true";' >"$debian/etc/apt/apt.conf.d/assume-yes"
# The network of this machine: names, proxies and certificates.
cp --dereference /etc/resolv.conf /etc/hosts "$debian/etc/"
certificates=/etc/ssl/certs/ca-certificates.crt here=/etc/certificates-of-the-host.crt
passed=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PYTEST_ADDOPTS; do
    [[ -z ${!name:-} ]] || passed+=("$name=${!name}")
done
# Where pip finds packages: its configuration, and the files and folders that it names.
while IFS= read -r setting; do
    passed+=("$setting")
    for path in ${setting#*=}; do
        [[ $path != file://* ]] || path=$(dirname "${path#file://}") # an index has its files beside it
        [[ $path == /* && -e $path ]] || continue
        if [[ -d $path ]]; then mkdir -p "$debian$path"; else install -D --mode 644 /dev/null "$debian$path"; fi
        mount --bind --read-only "$path" "$debian$path"
        lent+=("$debian$path")
    done
done < <("${PYTHON:-python3}" - <<'PYTHON'
import ast, subprocess, sys
known = {}  # what the environment says comes last
lines = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
for line in sorted(lines.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
    name, _, value = line.partition("=")
    known[name.rpartition(".")[2]] = ast.literal_eval(value)
for name in ("index-url", "extra-index-url", "find-links", "trusted-host", "constraint"):
    if name in known:
        print("PIP_" + name.replace("-", "_").upper() + "=" + " ".join(known[name].split()))
PYTHON
)
if [[ -e $certificates ]]; then
    install --mode 644 "$certificates" "$debian$here"
    passed+=("PIP_CERT=$here")
fi
as() { # as USER SCRIPT: in the new Debian, in the folder of the sources
    local user=$1
    shift
    chroot "$debian" /usr/bin/env -i "${passed[@]}" LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        su --preserve-environment --shell /bin/bash "$user" \
        --command "set -euo pipefail; export HOME=\$(getent passwd $user | cut -d: -f6); cd $home/fastconv; $*"
}

chroot "$debian" useradd --create-home newcomer
mkdir "$debian$home/fastconv"
cd "$root"
if [[ -e .git ]]; then git ls-files -z --cached --others --exclude-standard; else find . -type f -print0; fi |
    tar --create --null --files-from=- --ignore-failed-read | tar --extract -C "$debian$home/fastconv"
chroot "$debian" chown -R newcomer: "$home"

echo "== what is missing is said in one sentence"
missing() { # missing SENTENCE: pip's words, when it cannot build
    local started=$SECONDS words
    if words=$(as newcomer "$home/venv/bin/python -m pip install . 2>&1"); then fail "it was built without: $1"; fi
    grep --fixed-strings "error: fastconv cannot be built without $1" <<<"$words" || { echo "$words"; fail "pip did not say: $1"; }
    ! grep -E "copying|Collecting numpy" <<<"$words" || fail "pip said it after work"
    echo "   after $((SECONDS - started)) s, pip's own preparations included"
}
as root "apt-get update -qq; apt-get install -qq python3-venv >/dev/null 2>&1"
as newcomer "python3 -m venv $home/venv"
missing "a C compiler (gcc or clang); install it with: apt install gcc libc6-dev"
as root "apt-get install -qq --no-install-recommends gcc >/dev/null 2>&1"
missing "the headers of the C library; install it with: apt install libc6-dev"
as root "apt-get install -qq libc6-dev >/dev/null 2>&1"
missing "Python.h, the header of Python 3.11.2; install it with: apt install python3-dev"

echo "== README.md, Try it"
commands=$(sed -n '/^## Try it/,/^## What/p' README.md | sed -n '/^```sh$/,/^```$/p' | grep -v '^```')
as root "$(grep '^apt ' <<<"$commands") >/dev/null 2>&1"
started=$SECONDS
as newcomer "set -v
$(grep -v '^apt ' <<<"$commands")"
as newcomer "test -s fastconv-demo/index.html"
echo "   in $((SECONDS - started)) s"

echo "== extras, each alone"
as newcomer ". .venv/bin/activate; python -m pip wheel --quiet --no-deps --wheel-dir dist ."
promise() { # promise EXTRA: commands for somebody who has installed it, in the folder of the sources
    case $1 in
        bench) # every peer that it names is there and gives the same results
            echo 'fastconv bench --peers --network table --layers "r50 1x1 64-256@56" --quick --json bench.json'
            for peer in torch onnxruntime openvino ncnn; do echo "grep --quiet $peer bench.json"; done
            ;;
        demo) echo 'fastconv demo --output alone-demo; test -s alone-demo/index.html' ;;
        docs) echo 'sphinx-build --fail-on-warning --quiet docs build/docs; test -s build/docs/index.html' ;;
        safetensors)
            echo 'python -c "import numpy as np, fastconv as fc
fc.save({\"w\": np.arange(3.0)}, \"w.safetensors\")
assert fc.load(\"w.safetensors\")[\"w\"].tolist() == [0, 1, 2]"'
            ;;
        tensorboard)
            echo 'python -c "from fastconv.training.progress import TensorBoard
with TensorBoard(\"runs\"): pass"
ls runs/events.*'
            ;;
        test) echo 'PYTEST_ADDOPTS= pytest --quiet tests/test_io.py tests/test_readme.py tests/test_onnx.py' ;;
        *) # the first example of its page
            echo "python - <<'PYTHON'"
            sed -n '/^```python$/,/^```$/p' "docs/$1.md" | sed -n '2,/^```$/p' | grep -v '^```'
            echo PYTHON
            ;;
    esac
}
for extra in "${extras[@]}"; do
    echo "   $extra"
    as newcomer "python3 -m venv --clear alone; . alone/bin/activate
python -m pip install --quiet \"\$(echo dist/*.whl)[$extra]\"
$(promise "$extra")"
done
echo "== passed"
