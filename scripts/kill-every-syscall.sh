#!/bin/sh
# Fails every state-changing system call of `preflow run`, one at a time, and checks the store.
#
#   scripts/kill-every-syscall.sh [PREFLOW] [SAMPLE]
#
# For each call and each fault (KILL, ENOSPC, EIO): a fresh run meets that fault; then
# `preflow verify` must be clean, a plain run must succeed, and its outputs must be the ones of an
# undisturbed run. Exit codes of the disturbed run are not trusted, except that it must not claim
# success while an output is missing. SAMPLE: at most so many of the calls of one name, spread
# evenly from first to last; without it, all of them.
#
# Only calls of preflow itself are faulted: what its stages call is theirs. strace counts calls
# per thread and applies a fault to every thread that reaches the count.
set -eu

command -v strace >/dev/null || {
    echo "error: strace is needed: install the package \`strace\`" >&2
    exit 2
}
preflow=$(realpath "${1:-target/release/preflow}")
sample=${2:-0}
calls="openat mkdir rename renameat link linkat unlink unlinkat chmod fchmod write syncfs fsync \
symlink symlinkat rmdir ftruncate flock"
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
export PREFLOW_CACHE="$top/cache"

mkdir "$top/.git"
echo text > "$top/src.txt"
cat > "$top/p.yaml" <<'YAML'
preflow: 1
name: p
sources: { src: { path: src.txt, as: file } }
stages:
  a: { kind: command, inputs: { i: src }, outputs: { o: file }, command: 'cp "$IN_i" "$OUT_o"' }
  b:
    kind: command
    inputs: { i: a }
    outputs: { o: file, d: file }
    command: 'rev "$IN_i" > "$OUT_o"; mkdir "$OUT_d"; cp "$IN_i" "$OUT_d/x"; echo y > "$OUT_d/y"'
YAML
cd "$top"

# Names of objects are digests of their bytes, which `verify` has read.
results() { for port in a/o b/o b/d; do basename "$(readlink -f "cache/views/p/$port")"; done; }
reset() { chmod -R u+w cache 2>/dev/null || true; rm -rf cache; }
: "${JOBS:=1}"

reset
"$preflow" run -q p.yaml
wanted=$(results)
bad=0 done=0
for call in $calls; do
    reset
    strace -f -qq -b execve -e trace="$call" -o trace "$preflow" run -q -j "$JOBS" p.yaml >/dev/null
    total=$(awk '{ n[$1]++ } END { for (t in n) if (n[t] > m) m = n[t]; print m + 0 }' trace)
    step=1
    [ "$sample" -gt 0 ] && [ "$total" -gt "$sample" ] && step=$(( (total + sample - 1) / sample ))
    for fault in signal=KILL error=ENOSPC error=EIO; do
        k=1
        while [ "$k" -le "$total" ]; do
            what="$call $k of $total, $fault"
            reset
            code=0
            { strace -f -qq -b execve -e trace="$call" -e inject="$call:$fault:when=$k" -o trace \
                "$preflow" run -q -j "$JOBS" p.yaml; } >said 2>&1 || code=$?
            if grep -q panicked said; then
                echo "PANIC: $what: $(grep -m1 -A1 panicked said | tr '\n' ' ')"; bad=$((bad + 1))
            fi
            if ! "$preflow" verify >audit 2>&1; then
                echo "DAMAGED STORE: $what: $(head -3 audit)"; bad=$((bad + 1))
            elif [ "$code" = 0 ] && [ "$(results 2>/dev/null)" != "$wanted" ]; then
                echo "CLAIMS SUCCESS: $what"; bad=$((bad + 1))
            fi
            if ! "$preflow" run -q p.yaml >again 2>&1 || [ "$(results)" != "$wanted" ]; then
                echo "NO RECOVERY: $what: $(head -3 again)"; bad=$((bad + 1))
            fi
            done=$((done + 1))
            k=$((k + step))
        done
    done
done
echo "$done faults, $bad bad"
[ "$bad" = 0 ]
