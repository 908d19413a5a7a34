#!/usr/bin/env bash
# Makes .libtorch/ (headers and CPU libraries of libtorch 2.11.0) from Python wheels, fetched by pip.
# Does nothing when LIBTORCH points at a libtorch, or when .libtorch is complete.
# An interrupted run continues: finished wheels stay in .libtorch.part until the end.
set -euo pipefail
cd "$(dirname "$0")/.."
want=2.11.0
say() { printf 'libtorch: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$PWD/.libtorch" ]; then
    [ -d "$LIBTORCH/lib" ] || die "LIBTORCH=$LIBTORCH has no lib folder; unset it to let this script provision one"
    say "using LIBTORCH=$LIBTORCH"; exit 0
fi
if [ "$(cat .libtorch/build-version 2>/dev/null || true)" = "$want" ]; then exit 0; fi

python=""
for p in python3 python; do command -v "$p" >/dev/null 2>&1 && { python=$p; break; }; done
[ -n "$python" ] || die "python3 with pip is needed (Debian: apt-get install python3-pip), or set LIBTORCH"
"$python" -m pip --version >/dev/null 2>&1 || die "pip is missing (Debian: apt-get install python3-pip), or set LIBTORCH"

exec 9>.libtorch.lock
if command -v flock >/dev/null 2>&1; then flock 9; fi
if [ "$(cat .libtorch/build-version 2>/dev/null || true)" = "$want" ]; then exit 0; fi
part=.libtorch.part
mkdir -p "$part/wheels"
os=$(uname -s)
packages=("torch==$want")
[ "$os" = Linux ] && [ "$(uname -m)" = x86_64 ] && packages+=("nvidia-cuda-runtime==13.0.96" "nvidia-cuda-cupti==13.0.85")
for package in "${packages[@]}"; do
    mark="$part/wheels/${package//[^A-Za-z0-9.]/_}.done"
    [ -e "$mark" ] && continue
    say "fetching $package"
    "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$part/wheels" "$package" \
        || die "pip could not fetch $package; check the network and run this again (what was fetched is kept), or set LIBTORCH"
    : >"$mark"
done
say "unpacking"
rm -rf "$part/tree"; mkdir -p "$part/tree"
"$python" - "$part" "$os" <<'PY'
import glob, os, sys, zipfile
part, system = sys.argv[1:]
keep_lib = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libc10.dylib", "libtorch_cpu.dylib", "libtorch.dylib",
            "libomp.dylib", "libtorch_global_deps.dylib"}
keep_cuda = {"libcudart.so.13", "libcupti.so.13"}
for wheel in glob.glob(os.path.join(part, "wheels", "*.whl")):
    with zipfile.ZipFile(wheel) as z:
        for info in z.infolist():
            name = info.filename
            base = os.path.basename(name)
            if name.startswith("torch/include/") and base:
                out = os.path.join(part, "tree", name[len("torch/"):])
            elif name.startswith("torch/lib/") and base in keep_lib:
                out = os.path.join(part, "tree", "lib", base)
            elif base in keep_cuda:
                out = os.path.join(part, "tree", "lib", base)
            else:
                continue
            os.makedirs(os.path.dirname(out), exist_ok=True)
            with z.open(info) as src, open(out, "wb") as dst:
                while chunk := src.read(1 << 20):
                    dst.write(chunk)
PY
if [ "$os" = Linux ]; then printf 'INPUT(libtorch_cpu.so)\n' >"$part/tree/lib/libtorch.so"; fi
printf '%s' "$want" >"$part/tree/build-version"
rm -rf .libtorch
mv "$part/tree" .libtorch
rm -rf "$part" .libtorch.lock
say "ready in .libtorch"
