# preflow with its worker. CPU:
#   docker build -t preflow .
# CUDA, on the image of PyTorch:
#   docker build -t preflow:cuda --build-arg BASE=pytorch/pytorch:2.11.0-cuda13.0-cudnn9-runtime .
# Run it in a workspace: docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" preflow run
ARG BASE=python:3.12-slim-bookworm

FROM rust:1.91-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN wheels/build.sh

FROM ${BASE}
COPY --from=build /src/dist /tmp/dist
# Where the base has torch 2.11 already, pip leaves it as it is.
RUN python3 -m pip install --no-cache-dir /tmp/dist/*.whl && rm -rf /tmp/dist
WORKDIR /work
ENV XDG_STATE_HOME=/tmp/state
ENTRYPOINT ["preflow"]
CMD ["--help"]
