#!/usr/bin/env python3
"""preflow beside what people use, on the same weights, tokenizer, rows, batches and steps, in one run.

Peers are TRL, transformers and PyTorch, installed by pip below target/peers (PEERS_PYTHON names an interpreter
that has them). Each runs in a process of its own (`peer.py`), in turns with preflow. A rate is work per second;
preflow's is told twice: of the whole stage (start of the worker, tokenizing, checkpoint, figures included) and of
its loop alone. The peer's seconds are those of trainer.train() or generate() alone: what it needs before and after
is left out. Prints a line of JSON a measurement and a table of medians. `make peers`.
"""

import argparse
import glob
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ["torch==2.11.*", "transformers==5.24.*", "trl==1.16.*", "datasets", "peft"]
PEER = ROOT / "scripts/peer.py"
# Layers, width, heads, width of the gated layer, vocabulary. Two, so that nothing is tuned to one.
SHAPES = {"4x256": (4, 256, 4, 688, 2048), "6x384": (6, 384, 6, 1024, 8192)}
# What the whole stage must reach, as a multiple of the best peer.
WANTED = {"sft": 1.25, "mixed": 2.2, "reward": 1.5, "dpo": 2.0, "sample": 2.2, "grpo": 1.6, "pretrain": 1.1}
PEERS = {
    "pretrain": ["pretrain-eager", "pretrain-compile"],
    "sft": ["sft"],
    "mixed": ["sft", "sft-packed"],
    "reward": ["reward"],
    "dpo": ["dpo"],
    "sample": ["sample-32", "sample-128"],
    "grpo": ["grpo"],
}
UPDATES, GROUP, NEW = 4, 8, 64


def python():
    named = os.environ.get("PEERS_PYTHON")
    if named:
        return named
    return str(environment.made("peers", PACKAGES) / "bin/python")


class Rows:
    """Rows of random words. Lengths are those of chats: most short, few long."""

    def __init__(self, work, vocabulary):
        self.work, self.vocabulary, self.random = work, vocabulary, random.Random(0)

    def words(self, count):
        return " ".join("w%d" % self.random.randrange(self.vocabulary - 4) for _ in range(count))

    def length(self, low, high):
        return max(low, min(high, int(self.random.lognormvariate(2.9, 0.7))))

    def write(self, name, rows):
        path = self.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def all(self, scale):
        w, n = self.words, lambda count: max(64, int(count * scale))
        full = lambda: {"prompt": w(64), "completion": w(62)}
        mixed = lambda: {"prompt": w(self.length(3, 40)), "completion": w(self.length(2, 80))}
        pair = lambda: {"prompt": w(64), "chosen": w(62), "rejected": w(62)}
        files = {
            "sft": self.write("sft", [full() for _ in range(n(960))]),
            "mixed": self.write("mixed", [mixed() for _ in range(n(1920))]),
            "reward": self.write("reward", [pair() for _ in range(n(540))]),
            "sample": self.write("sample", [{"prompt": w(32)} for _ in range(n(256))]),
            "grpo": self.write("grpo", [{"prompt": w(32)} for _ in range(512)]),
            "pretrain": self.write("pretrain", [{"text": w(127)} for _ in range(n(1600))]),
        }
        files["dpo"] = files["reward"]
        return files


def stage(row, files, precision):
    """The stage of a pipeline file that does the row's work, and the type of its source."""
    compute = f"compute: {{ precision: {precision} }}"
    train = f"epochs: 1, batch: 32, lr: 1.0e-4, {compute}"
    tokens = 128 * (sum(1 for _ in open(files["pretrain"])) // 32 * 32)
    rules = "{ rules: [ { name: first, match: 'w1', score: 1.0 }, { name: long, words_over: 3, score: 0.01 } ] }"
    return {
        "pretrain": ("text", f"kind: pretrain, text: d, base: i, train: {{ tokens: {tokens}, batch_tokens: 4096, "
                             f"lr: 1.0e-4, {compute} }}"),
        "sft": ("prompt_completion", f"kind: sft, model: i, demos: d, train: {{ {train}, eval_fraction: 0 }}"),
        "mixed": ("prompt_completion", f"kind: sft, model: i, demos: d, train: {{ {train}, eval_fraction: 0, "
                                       "packing: true }"),
        "reward": ("labels", f"kind: train_reward, base: i, labels: d, {train}, eval_fraction: 0.1, ties: drop, "
                             "center: false"),
        "dpo": ("labels", f"kind: dpo, policy: i, labels: d, {train}, eval_fraction: 0.1"),
        "sample": ("prompt", f"kind: sample_pairs, policy: i, prompts: d, pairs: {lines(files['sample'])}, "
                             f"max_tokens: {NEW}"),
        "grpo": ("prompt", f"kind: grpo, policy: i, prompts: d, updates: {UPDATES}, batch: 64, minibatch: 16, "
                           f"group: {GROUP}, epochs: 1, lr: 1.0e-4, kl_coef: 0.05, max_tokens: {NEW}, "
                           f"eos: {{ mode: keep }}, rewards: {rules}, {compute}"),
    }[row]


def lines(path):
    return sum(1 for _ in open(path))


def work_of(row, files):
    """How much there is to do for preflow, and its unit. Of held-out rows none is trained on."""
    if row == "mixed":
        rows = [json.loads(line) for line in open(files["mixed"])]
        return sum(len((r["prompt"] + " " + r["completion"]).split()) + 1 for r in rows), "real tokens/s"
    pairs = round(lines(files["reward"]) * 0.9)
    return {
        "pretrain": (128 * (lines(files["pretrain"]) // 32 * 32), "tokens/s"),
        "sft": (128 * lines(files["sft"]), "tokens/s"),
        "reward": (pairs, "pairs/s"),
        "dpo": (pairs, "pairs/s"),
        "sample": (2 * NEW * lines(files["sample"]), "tokens/s"),
        "grpo": (64 * UPDATES, "episodes/s"),
    }[row]


class Bench:
    def __init__(self, options, shape):
        self.options, self.python = options, python()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="peers-"))
        self.precision = "bf16" if options.bf16 else "f32"
        sizes = SHAPES[shape]
        self.files = Rows(self.work, sizes[4]).all(options.scale)
        self.model = self.work / "model"
        self.peer("model", *map(str, sizes))
        self.rates = {}

    def peer(self, *words):
        command = [self.python, PEER, str(self.model), str(int(self.options.bf16)), *map(str, words)]
        said = subprocess.run(command, capture_output=True, text=True)
        result = [line for line in said.stdout.splitlines() if line.startswith("RESULT ")]
        if said.returncode or not result:
            sys.exit(f"{words}: {said.stdout[-2000:]}{said.stderr[-2000:]}")
        return json.loads(result[-1][7:])

    def ours(self, row):
        """Seconds of the whole stage, and of its loop."""
        kind, fields = stage(row, self.files, self.precision)
        path = self.work / f"{row}.yaml"
        path.write_text(
            f"preflow: 1\nname: {row}\nsources: {{ m: {{ path: model, as: huggingface }}, "
            f"d: {{ path: {self.files[row].name}, as: {kind} }} }}\n"
            f"stages: {{ i: {{ kind: import_model, source: m }}, x: {{ {fields} }} }}\n"
        )
        cache = str(self.work / "cache")
        command = [self.options.preflow, "run", "--json", "--force", "x", str(path), "--cache", cache]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode:
            sys.exit(f"preflow, {row}: {said.stdout[-2000:]}{said.stderr[-2000:]}")
        events = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
        done = [e for e in events if e["event"] == "stage_done" and e["stage"] == "x"][-1]
        journal = open(glob.glob(f"{cache}/runs/{events[0]['run']}/events.jsonl")[0])
        steps = [e for e in map(json.loads, journal) if e["event"] == "progress" and e.get("stage") == "x"]
        steps = [(e["t"], e["done"], e["total"]) for e in steps if e["done"] < e["total"]]
        if len(steps) < 3:
            return done["seconds"], None
        (begun, first, total), (ended, last, _) = steps[0], steps[-1]
        return done["seconds"], (ended - begun) / (last - first) * total

    def note(self, row, who, seconds, amount):
        rate = amount / seconds
        self.rates.setdefault(row, {}).setdefault(who, []).append(rate)
        print(json.dumps({"row": row, "who": who, "seconds": round(seconds, 3), "rate": round(rate, 2)}), flush=True)

    def measure(self, row):
        amount, _ = work_of(row, self.files)
        for _ in range(self.options.reps):
            whole, loop = self.ours(row)
            self.note(row, "preflow, whole stage", whole, amount)
            if loop:
                self.note(row, "preflow, loop", loop, amount)
            for what in PEERS[row]:
                said = self.peer(what, self.files[row], UPDATES, NEW, GROUP)
                # A peer trains on all rows, also where preflow holds some out; each has its own work.
                self.note(row, what, said["seconds"], said.get("work", amount))

    def table(self, shape, matmul):
        print(f"\n{shape}, {self.precision}, {os.cpu_count()} cores, {matmul['gflops']:.0f} GFLOP/s in f32, "
              f"{matmul['bf16']:.0f} in bf16; {matmul['versions']}\n")
        print("| row | unit | preflow, whole stage | preflow, loop | peers | whole ÷ best peer | wanted |")
        print("|---|---|---:|---:|---|---:|---:|")
        for row, rates in self.rates.items():
            median = {who: statistics.median(all_of) for who, all_of in rates.items()}
            whole, loop = median.pop("preflow, whole stage"), median.pop("preflow, loop", None)
            peers = ", ".join(f"{who} {rate:,.1f}" for who, rate in median.items())
            unit = work_of(row, self.files)[1]
            loop = f"{loop:,.1f}" if loop else "–"
            print(f"| {row} | {unit} | {whole:,.1f} | {loop} | {peers} | {whole / max(median.values()):.2f} | "
                  f"{WANTED[row]} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preflow", default=str(ROOT / "target/release/preflow"))
    parser.add_argument("--rows", default=",".join(PEERS))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows; 1 is what figures are told of")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    for shape in options.shapes.split(","):
        bench = Bench(options, shape)
        matmul = bench.peer("matmul")
        for row in options.rows.split(","):
            bench.measure(row)
        bench.table(shape, matmul)
        shutil.rmtree(bench.work)


main()
