#!/usr/bin/env python3
"""What preflow costs beside ninja (and DVC where installed), measured in one run on one machine.

    bench.py [--preflow PATH] [--quick] [--only WORD] [--no-training]

Prints Markdown tables. Each stage is `: Q; { cat INPUT; echo P; } > OUTPUT; echo NAME >> exec.log`: changing P
changes its bytes, changing Q does not, exec.log counts what really ran. A wrong count ends the bench with an error.
Times are medians of whole processes, in milliseconds. Absolute times mean nothing on a shared machine: compare.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Pipeline:
    """A chain or a fan of `n` stages; `p` and `q` of the middle one can be changed."""

    def __init__(self, shape, n):
        self.shape, self.n, self.mid, self.p, self.q = shape, n, n // 2, "p", "q"

    def stages(self):
        for i in range(1, self.n + 1):
            source = i == 1 or self.shape == "fan"
            mid = i == self.mid
            yield i, None if source else i - 1, self.p if mid else f"p{i}", self.q if mid else "q"


def command(q, p, read, write, name, log):
    return f": {q}; {{ cat {read}; echo {p}; }} > {write}; echo {name} >> {log}"


class Preflow:
    name = "preflow"

    def __init__(self, program):
        self.program = program

    def write(self, d, pipe):
        (d / ".git").mkdir(exist_ok=True)
        lines = ["preflow: 1", "name: bench", "sources: { src: { path: src.txt, as: file } }", "stages:"]
        for i, up, p, q in pipe.stages():
            run = command(q, p, "$IN_a", "$OUT_o", i, d / "exec.log")
            ref = "src" if up is None else f"s{up}"
            lines.append(f"  s{i}: {{ kind: command, inputs: {{ a: {ref} }}, outputs: {{ o: file }}, command: '{run}' }}")
        (d / "p.yaml").write_text("\n".join(lines) + "\n")

    def run(self):
        return [self.program, "run", "-q", "p.yaml"]

    def plan(self):
        return [self.program, "plan", "p.yaml"]

    def drop_outputs(self, d):
        shutil.rmtree(d / "cache" / "views")


class Ninja:
    name = "ninja"

    def write(self, d, pipe):
        (d / "data").mkdir(exist_ok=True)
        lines = ["rule sh", "  command = $cmd"]
        for i, up, p, q in pipe.stages():
            read = "src.txt" if up is None else f"data/{up}.txt"
            run = command(q, p, read, f"data/{i}.txt", i, d / "exec.log")
            lines += [f"build data/{i}.txt: sh {read}", f"  cmd = {run}"]
        (d / "build.ninja").write_text("\n".join(lines) + "\n")

    def run(self):
        return ["ninja", "-j2", "--quiet"]

    def plan(self):
        return ["ninja", "-n", "--quiet"]

    def drop_outputs(self, d):
        shutil.rmtree(d / "data")


class Dvc:
    name = "dvc"

    def write(self, d, pipe):
        (d / "data").mkdir(exist_ok=True)
        lines = ["stages:"]
        for i, up, p, q in pipe.stages():
            read = "src.txt" if up is None else f"data/{up}.txt"
            run = command(q, p, read, f"data/{i}.txt", i, d / "exec.log")
            lines += [f"  s{i}:", f"    cmd: '{run}'", f"    deps: [{read}]", f"    outs: [data/{i}.txt]"]
        (d / "dvc.yaml").write_text("\n".join(lines) + "\n")
        if not (d / ".dvc").exists():
            subprocess.run("git init -q . && dvc init -q", shell=True, cwd=d, check=True)

    def run(self):
        return ["dvc", "repro", "-q"]

    def plan(self):
        return ["dvc", "status", "-q"]

    def drop_outputs(self, d):
        shutil.rmtree(d / "data")


def timed(words, d, ok=(0,)):
    """Milliseconds, and how many stages really ran."""
    log = d / "exec.log"
    log.unlink(missing_ok=True)
    start = time.perf_counter()
    done = subprocess.run(words, cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    took = (time.perf_counter() - start) * 1000
    if done.returncode not in ok:
        sys.exit(f"bench: {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return took, len(log.read_text().split()) if log.exists() else 0


class Bench:
    def __init__(self, tools, only):
        self.tools, self.only, self.rows = tools, only, []

    def row(self, label, target, measure, expect=None, reps=5, compare=True):
        """`measure(tool, repetition)` → (ms, executed). `expect`: stages that preflow must execute."""
        if self.only and self.only not in label:
            return
        cells = {}
        for tool in self.tools if compare else self.tools[:1]:
            results = [measure(tool, i) for i in range(reps)]
            cells[tool.name] = statistics.median(ms for ms, _ in results)
            if tool.name == "preflow" and expect is not None and {n for _, n in results} != {expect}:
                sys.exit(f"bench: {label}: executed {[n for _, n in results]}, expected {expect}")
        mine = cells["preflow"]
        shown = [f"{cells[t.name]:.1f}" if t.name in cells else "" for t in self.tools]
        ratio = f"{mine / cells['ninja']:.2f}" if "ninja" in cells else ""
        met = "" if target is None else ("yes" if mine <= target else "no")
        self.print([label, *shown, ratio, "" if target is None else f"≤ {target}", met])

    def head(self):
        names = [f"{t.name} ms" for t in self.tools]
        self.print(["what", *names, "preflow / ninja", "target ms", "met"])
        self.print(["---"] * (len(names) + 4))

    def print(self, cells):
        print("| " + " | ".join(cells) + " |", flush=True)


def orchestrator(args):
    n = 100 if args.quick else 1000
    tools = [Preflow(str(pathlib.Path(args.preflow).resolve()))]
    tools += [tool() for tool in (Ninja, Dvc) if shutil.which(tool.name)]
    for missing in {"ninja", "dvc"} - {t.name for t in tools}:
        print(f"({missing} is not on PATH: its column is missing)")
    bench = Bench(tools, args.only)
    print(f"\n### Orchestrator: {n} `command` stages, {os.cpu_count()} cores\n")
    bench.head()
    preflow = tools[0]
    with tempfile.TemporaryDirectory() as top:
        top = pathlib.Path(top)

        def fresh(tool, pipe, tag):
            d = top / f"{tool.name}-{tag}"
            shutil.rmtree(d, ignore_errors=True)
            d.mkdir()
            (d / "src.txt").write_text("src\n")
            tool.write(d, pipe)
            return d

        here = fresh(preflow, Pipeline("chain", 1), "start")
        bench.row("start: `--version`", 3, lambda t, i: timed([preflow.program if t is preflow else t.name, "--version"], here))
        for shape, target in (("fan", 1600), ("chain", 2600)):
            bench.row(f"first run, {shape}", target * n / 1000,
                      lambda t, i: timed(t.run(), fresh(t, Pipeline(shape, n), shape)), expect=n, reps=3)
        dirs = {t.name: top / f"{t.name}-chain" for t in tools}
        pipe = Pipeline("chain", n)
        if any(not d.exists() for d in dirs.values()):
            for t in tools:
                timed(t.run(), fresh(t, pipe, "chain"))
        for t in tools:
            timed(t.run(), dirs[t.name])

        def edit(t, p, q):
            pipe.p, pipe.q = p, q
            t.write(dirs[t.name], pipe)

        def changed(t, i, what):
            edit(t, *(f"new{i}", "q") if what == "p" else ("p", f"noise{i}"))
            result = timed(t.run(), dirs[t.name])
            if what == "q":
                edit(t, "p", "q")
                timed(t.run(), dirs[t.name])
            return result

        bench.row("no-op run", 20 * n / 1000, lambda t, i: timed(t.run(), dirs[t.name]), expect=0)
        bench.row("`plan`, a reason a stage", 25 * n / 1000, lambda t, i: timed(t.plan(), dirs[t.name], ok=(0, 1)), expect=0)
        bench.row("`status`", 25 * n / 1000, lambda t, i: timed([preflow.program, "status", "p.yaml"], dirs["preflow"]),
                  expect=0, compare=False)
        bench.row("middle param, other bytes", 1500 * n / 1000, lambda t, i: changed(t, i, "p"), expect=n - n // 2 + 1, reps=3)

        def back(t, i):
            edit(t, f"new{i}", "q")
            return timed(t.run(), dirs[t.name])

        bench.row("param back to a value seen before", 150 * n / 1000, back, expect=0, reps=3)
        for t in tools:
            edit(t, "p", "q")
            timed(t.run(), dirs[t.name])
        bench.row("middle param, same bytes (early cutoff)", 40 * n / 1000, lambda t, i: changed(t, i, "q"), expect=1, reps=3)

        def dropped(t, i):
            t.drop_outputs(dirs[t.name])
            (dirs[t.name] / "data").mkdir(exist_ok=True)
            return timed(t.run(), dirs[t.name])

        bench.row("outputs deleted, brought back", 250 * n / 1000, dropped, expect=0, reps=3)

        def touched(t, i):
            os.utime(dirs[t.name] / "src.txt")
            return timed(t.run(), dirs[t.name])

        bench.row("source touched, same bytes", 25 * n / 1000, touched, expect=0, reps=3)
        for count, target in ((10, 6),) + (() if args.quick else ((10_000, 150),)):
            if args.only and args.only not in f"no-op run, {count} stages":
                continue
            d = fresh(preflow, Pipeline("fan", count), f"fan{count}")
            timed(preflow.run(), d)
            bench.row(f"no-op run, {count} stages", target, lambda t, i: timed(preflow.run(), d), expect=0, compare=False)
        mib = 64 if args.quick else 1024
        big = fresh(preflow, Pipeline("chain", 1), "big")
        with open(big / "src.txt", "wb") as f:
            block = os.urandom(1 << 20)
            for _ in range(mib):
                f.write(block)
        timed(preflow.run(), big)
        time.sleep(2.5)  # a file changed within two seconds is hashed again whatever its times say
        timed(preflow.run(), big)

        def big_touched(t, i):
            os.utime(big / "src.txt")
            return timed(preflow.run(), big)

        bench.row(f"{mib} MiB source touched", 650 * mib / 1024, big_touched, expect=0, compare=False, reps=3)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"\nLargest resident set of any process above: {before / 1024:.0f} MiB")


def training(args):
    """Tokens a second of the shipped demo, beside the same loop in PyTorch where it is installed."""
    worker = pathlib.Path(args.preflow).with_name("preflow-worker")
    if not worker.exists():
        print("\n(no preflow-worker beside preflow: training is not measured)")
        return
    pipeline = ROOT / "pipelines" / ("smoke.yaml" if args.quick else "workshop.yaml")
    print(f"\n### Training: stages of {pipeline.name}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as top:
        words = [args.preflow, "run", str(pipeline), "--cache", top, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"bench: the demo ended with {done.returncode}: {done.stdout[-800:]}{done.stderr[-800:]}")
        rates, seconds = {}, {}
        for line in done.stdout.splitlines():
            event = json.loads(line)
            if event["event"] == "metric":
                for name, value in event["values"].items():
                    if "tokens_per_s" in name and value:
                        rates.setdefault(event["stage"], []).append(value)
            if event["event"] == "stage_done":
                seconds[event["stage"]] = event["seconds"]
    print("| stage | seconds | tokens/s (median) |\n|---|---|---|")
    for stage, took in seconds.items():
        rate = f"{statistics.median(rates[stage]):.0f}" if stage in rates else ""
        print(f"| {stage} | {took:.1f} | {rate} |")
    peer = subprocess.run([sys.executable, str(ROOT / "scripts" / "bench_torch.py")], capture_output=True, text=True, check=False)
    if peer.returncode == 0:
        print(f"\nThe pretrain loop in PyTorch eager, same shape, f32: {peer.stdout.strip()} tokens/s")
    else:
        print("\n(PyTorch is not installed for this python: no peer for pretrain; `pip install torch` adds it)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--preflow", default=str(ROOT / "target" / "release" / "preflow"))
    parser.add_argument("--quick", action="store_true", help="100 stages, the smoke pipeline")
    parser.add_argument("--only", default="", help="rows that contain this word")
    parser.add_argument("--no-training", action="store_true")
    args = parser.parse_args()
    orchestrator(args)
    if not args.no_training and not args.only:
        training(args)


if __name__ == "__main__":
    main()
