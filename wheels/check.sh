#!/usr/bin/env bash
# Installs the wheels of dist/ as a user would, into fresh environments without a compiler, and runs the
# tiny template: once for each Python that is at hand. PYTHONS names others.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

all=${PYTHONS:-$(for v in 10 11 12 13 14; do command -v "python3.$v" || true; done)}
[ -n "$all" ] || all=$(command -v python3)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Programs without which nothing can be built, and none of the sources.
mkdir "$work/path"
for program in bash sh env cat ls mkdir rm git tar; do ln -s "$(command -v "$program")" "$work/path/$program"; done

for wheel in dist/preflow-*.whl dist/preflow_worker-*.whl; do
    echo "wheels: $wheel $(du -h "$wheel" | cut -f1)"
done

for python in $all; do
    env="$work/$(basename "$python")"
    "$python" -m venv "$env"
    start=$(date +%s)
    "$env/bin/pip" install --quiet --disable-pip-version-check dist/preflow-*.whl dist/preflow_worker-*.whl
    took=$(($(date +%s) - start))
    run() { env -i HOME="$work" PATH="$env/bin:$work/path" "$@"; }
    cd "$work"
    rm -rf x
    run preflow init x >/dev/null
    cd x
    run preflow doctor | tee "$work/doctor"
    grep -q 'site-packages/preflow_worker/bin/preflow-worker' "$work/doctor"
    run preflow run --progress lines | tail -3
    run preflow run | grep -q 'nothing to do'
    run "$env/bin/python" - <<'PY'
import preflow

assert preflow.path("pipelines/tiny.yaml", "ppo").is_dir()
table = preflow.load("pipelines/tiny.yaml", "labels")
print("labels:", type(table).__name__)
try:
    preflow.path("pipelines/tiny.yaml", "no_such_stage")
except preflow.PreflowError as error:
    assert error.code == 2, error.code
else:
    raise SystemExit("an unknown stage was not refused")
PY
    # Torch away, then another one: told with the remedy, and nothing is lost.
    packages=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mv "$packages/torch/version.py" "$packages/torch/version.kept"
    ! run preflow doctor >"$work/said"
    grep -q 'torch is not installed' "$work/said" && grep -q 'pip install torch==2.11.0' "$work/said"
    sed 's/2\.11\.0/2.10.0/' "$packages/torch/version.kept" >"$packages/torch/version.py"
    ! run preflow run --force tokenizer 2>"$work/said"
    grep -q 'torch 2.10.0' "$work/said" && grep -q 'pip install torch==2.11.0' "$work/said"
    mv "$packages/torch/version.kept" "$packages/torch/version.py"
    run preflow run | grep -q 'nothing to do'
    cd "$root"
    rm -rf "$env"
    echo "wheels: $("$python" --version) installed in ${took} s, ran the tiny template"
done
