#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A newcomer's first hour: the README's commands, as they stand, in an empty Debian 12.
#
#   tools/check_debian.sh [EXTRA...]      extras to install alone (default: safetensors scipy dask torch bench)
#
# Needs root, debootstrap, Debian's mirror (DEBIAN_MIRROR) and pip's index; leaves nothing behind. While compiler and
# headers arrive one by one, pip has to name the next one that is missing. Then `## Try it` of README.md: what begins
# with apt for root, the rest for a user. At last each extra alone, as its page in docs/ shows it.
# PYTEST_ADDOPTS goes to the README's pytest, such as '-m "not slow"'.
set -euo pipefail

if [[ ${FASTCONV_NAMESPACE:-} != 1 ]]; then # mounts that end with this script
    [[ $(id -u) == 0 ]] || { echo "check_debian: needs root" >&2; exit 1; }
    FASTCONV_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
debian=$work/debian
home=/home/newcomer
cleanup() {
    umount --recursive "$debian/proc" "$debian/dev/shm" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
fail() { echo "check_debian: $*" >&2; exit 1; }
extras=("$@")
[[ ${#extras[@]} -gt 0 ]] || extras=(safetensors scipy dask torch bench)

echo "== an empty Debian 12"
debootstrap --variant=minbase bookworm "$debian" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/log" ||
    { tail "$work/log"; fail "debootstrap failed"; }
mount -t proc proc "$debian/proc"
mkdir -p "$debian/dev/shm"
mount -t tmpfs tmpfs "$debian/dev/shm"
echo 'APT::Get::Assume-Yes "true";' >"$debian/etc/apt/apt.conf.d/assume-yes"
# The network of this machine: names, proxies, certificates, and where pip's index is.
cp --dereference /etc/resolv.conf /etc/hosts "$debian/etc/"
certificates=/etc/ssl/certs/ca-certificates.crt here=/etc/certificates-of-the-host.crt
passed=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_TRUSTED_HOST PYTEST_ADDOPTS; do
    [[ -z ${!name:-} ]] || passed+=("$name=${!name}")
done
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
example() { # example PAGE: its first block of Python
    sed -n '/^```python$/,/^```$/p' "$1" | sed -n '2,/^```$/p' | grep -v '^```'
}
for extra in "${extras[@]}"; do
    if [[ -e docs/$extra.md ]]; then
        example "docs/$extra.md" >"$debian$home/fastconv/promise.py"
    elif [[ $extra == bench ]]; then # every peer that it names is there and gives the same results
        cat >"$debian$home/fastconv/promise.py" <<'PROMISE'
import subprocess, sys
command = [sys.executable, "-m", "fastconv", "bench", "--peers", "--network", "table", "--layers", "r50 1x1 64-256@56"]
subprocess.run([*command, "--quick", "--json", "/tmp/bench.json"], check=True)
said = open("/tmp/bench.json").read()
assert all(peer in said for peer in ("torch", "onnxruntime", "openvino", "ncnn")), said
PROMISE
    else
        cat >"$debian$home/fastconv/promise.py" <<'PROMISE'
import numpy as np, fastconv as fc
fc.save({"w": np.arange(3.0)}, "/tmp/w.safetensors")
assert fc.load("/tmp/w.safetensors")["w"].tolist() == [0, 1, 2]
PROMISE
    fi
    as newcomer "python3 -m venv --clear alone; alone/bin/python -m pip install --quiet \"\$(echo dist/*.whl)[$extra]\"
        cd /tmp; $home/fastconv/alone/bin/python $home/fastconv/promise.py"
    echo "   $extra"
done
echo "== passed"
