#!/usr/bin/env bash
# Runs the tests of the stages once for each set of vector instructions that libtorch knows, as far as
# this processor has them: results must not depend on which one it is.
set -euo pipefail
cd "$(dirname "$0")/.."

has() { grep -qm1 -w "$1" /proc/cpuinfo; }
run() { # CAPABILITY OF_MKL
    echo "== ATEN_CPU_CAPABILITY=$1 MKL_ENABLE_INSTRUCTIONS=$2"
    ATEN_CPU_CAPABILITY=$1 MKL_ENABLE_INSTRUCTIONS=$2 cargo test -p preflow-stages --locked --quiet --lib --test stages
}

run default SSE4_2
if has avx2; then run avx2 AVX2; else echo "== avx2: not on this processor"; fi
if has avx512f && has avx512bw && has avx512dq && has avx512vl; then
    run avx512 AVX512
else
    echo "== avx512: not on this processor"
fi
