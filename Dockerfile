# The environment of `make setup` as an image, for one device, and the repository with it.
#
#   docker build -t verl-mmupt .
#   docker build -t verl-mmupt:cuda --build-arg DEVICE=cuda --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04 .
#
#   docker run --rm --shm-size=8g verl-mmupt make train
#   docker run --rm --shm-size=8g --gpus all -v "$PWD/runs:/mmupt/runs" verl-mmupt:cuda make train RECIPE=...
#
# --shm-size: Ray and the weight transfer to vLLM live in /dev/shm, of which Docker gives 64 MB otherwise.
# The cuda base is a devel image because kernels are compiled at run time; CUDA 13.0 is what torch 2.11.0 is built for.

ARG BASE=python:3.12-slim
FROM ${BASE}
ARG DEVICE=cpu

# libnuma1 is what vLLM on CPU is linked to. An image without Python of its own gets its distribution's.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 make \
    && { command -v python3 || apt-get install -y --no-install-recommends python3-dev python3-venv; } \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /mmupt

# The environment first: a change of the code does not install it again.
COPY Makefile pyproject.toml requirements*.txt README.md LICENSE ./
COPY scripts scripts
COPY shims shims
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 make setup DEVICE=${DEVICE}

COPY . .
CMD ["make", "help"]
