# The environment of `make setup` as an image, for one device, and the repository with it. Never built so far.
#
#   docker build -t verl-mmupt .
#   docker build -t verl-mmupt:cuda --build-arg DEVICE=cuda .
#
#   docker run --rm --shm-size=8g verl-mmupt make train
#   docker run --rm --shm-size=8g --gpus all -v "$PWD/runs:/mmupt/runs" verl-mmupt:cuda make train RECIPE=...
#
# --shm-size: Ray and the weight transfer to vLLM live in /dev/shm, of which Docker gives 64 MB otherwise.
# A folder of yours that is mounted must be writable for user 1000, which the container runs as.
# Checked with hadolint 2.15.1.

ARG DEVICE=cpu

FROM python:3.12-slim-bookworm@sha256:a116514e19457bcb7af7efe9c3dd0b9b71e85b317694e7882a1c52aa15a78134 AS cpu

# veRL's own base (docker/Dockerfile.stable.vllm): CUDA 13.0 is what torch 2.11.0 is built for, and Python is 3.12, for
# which veRL has a flash-attn wheel. A devel image, because kernels are compiled at run time.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04@sha256:5dc1bca23d05bd37b011be68ec470c03b403a5da07ec3a86e41af9470e9d0cc6 AS cuda

# The stage of the device.
FROM ${DEVICE}
ARG DEVICE

# libnuma1 is what vLLM on CPU is linked to. An image without Python of its own gets its distribution's. Versions follow
# the base image, whose distribution keeps no older ones.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ libnuma1 make \
    && { command -v python3 || apt-get install -y --no-install-recommends python3-dev python3-venv; } \
    && rm -rf /var/lib/apt/lists/*

# Ubuntu's image has a user 1000 already.
RUN { id 1000 || useradd --uid 1000 --create-home mmupt; } && install --directory --owner=1000 --group=1000 /mmupt
USER 1000
WORKDIR /mmupt

# The environment first: a change of the code does not install it again.
COPY --chown=1000:1000 Makefile pyproject.toml requirements*.txt README.md LICENSE ./
COPY --chown=1000:1000 scripts scripts
COPY --chown=1000:1000 shims shims
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make setup DEVICE="${DEVICE}"

COPY --chown=1000:1000 . .
CMD ["make", "help"]
