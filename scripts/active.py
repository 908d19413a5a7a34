#!/usr/bin/env python3
"""What it is worth to ask first where the reward ensemble disagrees.

In the workshop's world, a simulated annotator judges the same number of pairs twice: in random order,
and in rounds, each time those on which the ensemble trained on the labels so far disagrees most.
Measured is the accuracy of the reward model on other pairs, about prompts nobody labelled, judged
without error. Prints mean and spread over seeds, and the difference seed by seed.
usage: active.py [--preflow PATH] [--seeds N] [--first N] [--step N] [--votes N] [--work DIR]
Needs pyarrow; it is installed with pip into target/active where it is missing.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORLD = """
preflow: 1
name: active
params: {{ seed: 1, subset: {work}/subset.jsonl, pool: {work}/pool.jsonl }}
sources:
  corpus: {{ path: {root}/datasets/workshop/corpus.parquet, as: text }}
  demos: {{ path: {root}/datasets/workshop/demos.jsonl, as: prompt_completion }}
  prompts: {{ path: {root}/datasets/workshop/prompts.jsonl, as: prompt }}
  unseen: {{ path: {root}/datasets/workshop/eval.jsonl, as: prompt }}
  subset: {{ path: $subset, as: labels }}
  pool: {{ path: $pool, as: pairs }}
stages:
  tokenizer: {{ kind: tokenizer, text: corpus, algorithm: bpe, vocab_size: 512 }}
  base:
    kind: pretrain
    text: corpus
    tokenizer: tokenizer
    model: {{ arch: llama, layers: 4, hidden: 128, heads: 4, context: 64, tie_embeddings: true }}
    train: {{ tokens: 800k, batch_tokens: 1024, lr: 2.0e-3, schedule: cosine, warmup: 2% }}
    seed: 17
  demonstrations: {{ kind: prepare, data: demos, as: prompt_completion, dedupe: true }}
  sft: {{ kind: sft, model: base, demos: demonstrations, train: {{ epochs: 3, lr: 3.0e-4 }}, seed: 17 }}
  pairs: {{ kind: sample_pairs, policy: sft, prompts: prompts, pairs: 2400, max_tokens: 20, seed: 17 }}
  other: {{ kind: sample_pairs, policy: sft, prompts: unseen, pairs: 1200, max_tokens: 20, seed: 18 }}
  labels:
    kind: collect_labels
    pairs: pairs
    labeler:
      simulated:
        rules: !include gold.yaml
        temperature: 0.25
        flip: 5%
        tie_below: 0.05
    seed: $seed
  truth:
    kind: collect_labels
    pairs: other
    labeler:
      simulated:
        rules: !include gold.yaml
        temperature: 0
        flip: 0%
        tie_below: 0.05
  reward:
    kind: train_reward
    base: sft
    labels: subset
    eval_labels: truth
    pool: pool
    members: 3
    epochs: 4
    keep_best: false
    seed: $seed
"""


class World:
    """One folder with its pipeline, and the commands in it."""

    def __init__(self, preflow, work):
        self.preflow, self.work = preflow, work
        (work / ".git").mkdir(exist_ok=True)
        shutil.copy(ROOT / "datasets/workshop/gold.yaml", work)
        (work / "w.yaml").write_text(WORLD.format(root=ROOT, work=work))
        for name in ["subset.jsonl", "pool.jsonl"]:
            (work / name).write_text("{}\n")

    def run(self, *args):
        done = subprocess.run([self.preflow, *args], cwd=self.work, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"preflow {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def labels(self, seed):
        """Every pair of the pool as the annotator of this seed would judge it."""
        self.run("run", "w.yaml", "labels", "truth", "--set", f"seed={seed}")
        text = self.run("label", "export", "w.yaml", "labels", "--format", "jsonl", "--set", f"seed={seed}")
        return [json.loads(line) for line in text.splitlines()]

    def train(self, seed, labelled, rest):
        """Accuracy of the ensemble on the truth, and the pairs of `rest`, most disputed first."""
        write = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
        keep = ["pair", "prompt", "response_a", "response_b", "finished_a", "finished_b"]
        (self.work / "subset.jsonl").write_text(write(labelled))
        (self.work / "pool.jsonl").write_text(write([{k: row[k] for k in keep} for row in rest]))
        sets = ["--set", f"seed={seed}"]
        self.run("run", "w.yaml", "reward", *sets)
        figures = [json.loads(x) for x in self.run("metrics", "w.yaml", "reward", "--json", *sets).splitlines()]
        accuracy = [f["value"] for f in figures if f["name"] == "eval/accuracy"][-1]
        view = self.work / "cache" / "views" / "active" / "reward" / "disagreement.parquet"
        import pyarrow.parquet
        table = pyarrow.parquet.read_table(view).to_pylist()
        key = lambda row: (row["prompt"], row["response_a"], row["response_b"])
        place = {key(row): i for i, row in enumerate(table)}
        return accuracy, sorted(rest, key=lambda row: place.get(key(row), len(place)))


def once(world, seed, args):
    """Accuracy by number of labels, in both orders, from the same first labels."""
    pool = world.labels(seed)
    random.Random(seed).shuffle(pool)
    found = {"random": {}, "disagreement": {}}
    for order in found:
        labelled, rest = pool[: args.first], pool[args.first :]
        while True:
            accuracy, disputed = world.train(seed, labelled, rest)
            found[order][len(labelled)] = accuracy
            print(f"seed {seed} {order:12} {len(labelled):5} votes: {accuracy:.3f}", flush=True)
            if len(labelled) >= args.votes:
                break
            rest = disputed if order == "disagreement" else rest
            labelled, rest = labelled + rest[: args.step], rest[args.step :]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--preflow", default=str(ROOT / "target/release/preflow"))
    parser.add_argument("--work")
    for name, value in [("seeds", 3), ("first", 100), ("step", 100), ("votes", 400)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    library()
    work = pathlib.Path(args.work or tempfile.mkdtemp(prefix="active-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    world = World(str(pathlib.Path(args.preflow).resolve()), work)
    runs = [once(world, seed, args) for seed in range(1, args.seeds + 1)]
    print("\nvotes   random          disagreement    difference")
    for votes in runs[0]["random"]:
        columns = [[run[order][votes] for run in runs] for order in ("random", "disagreement")]
        gain = [b - a for a, b in zip(*columns)]
        spread = lambda xs: statistics.stdev(xs) if len(xs) > 1 else 0.0
        cells = [f"{statistics.mean(c):.3f} ± {spread(c):.3f}" for c in columns]
        print(f"{votes:5}   " + "   ".join(cells), f"  {statistics.mean(gain):+.3f} ± {spread(gain):.3f}")


def library():
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        folder = ROOT / "target/active"
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "pyarrow"], check=True)
        sys.path.insert(0, str(folder))


if __name__ == "__main__":
    main()
