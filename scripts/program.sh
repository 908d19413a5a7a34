#!/usr/bin/env bash
# Prints which preflow `make demo` runs, and builds one only where there is none: PREFLOW, one that is
# installed, one that was built from these sources, wheels in dist/, or else the sources.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'preflow: %s\n' "$*" >&2; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# Of this version, and its worker starts.
works() { [ "$("$1" --version 2>/dev/null)" = "preflow $version" ] && "$1" doctor 2>/dev/null | grep -q '^ ✓ worker'; }

if [ -n "${PREFLOW:-}" ]; then
    echo "$PREFLOW"; exit 0
fi
if installed=$(command -v preflow) && works "$installed"; then
    say "using $installed"; echo "$installed"; exit 0
fi
built=target/release/preflow
if [ -x "$built" ] && [ -x "$built-worker" ] && works "$built" \
    && [ -z "$(find Cargo.toml Cargo.lock src stages/src stages/catalog.json templates datasets -newer "$built" -type f -print -quit)" ]; then
    echo "$built"; exit 0
fi
if compgen -G "dist/preflow-$version-*.whl" >/dev/null && compgen -G "dist/preflow_worker-$version-*.whl" >/dev/null; then
    env=target/demo-env
    say "installing the wheels of dist/ into $env"
    [ -x "$env/bin/pip" ] || python3 -m venv "$env"
    "$env/bin/pip" install --quiet --disable-pip-version-check --upgrade dist/preflow-"$version"-*.whl dist/preflow_worker-"$version"-*.whl
    echo "$env/bin/preflow"; exit 0
fi
./scripts/libtorch.sh
cargo build --release --locked >&2
echo "$built"
