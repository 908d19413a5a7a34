#!/usr/bin/env python3
"""How long preflow's own work takes, beside ninja and DVC on the same stages, as one table.

Times are medians, in milliseconds, of whole processes; compare columns of one table only. Every
row also checks how many stages really ran. `--only PATTERN` picks rows by a part of their name.
"""

import argparse, glob, importlib.util, json, os, shutil, statistics, subprocess, sys
import tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
JOBS = str(os.cpu_count() or 1)
# Where `put_away` puts things; set by `Bench`.
PUT_AWAY = ""


LETTERS = """preflow: 1
sources: { train: { path: train.txt }, held_out: { path: held_out.txt } }
stages:
  text: { kind: prepare, data: train, as: text, unit: whole }
  unseen: { kind: prepare, data: held_out, as: text, unit: whole }
  tokenizer: { kind: tokenizer, text: text, algorithm: char }
  model:
    kind: pretrain
    text: text
    eval_text: unseen
    tokenizer: tokenizer
    model: { layers: 4, hidden: 128, heads: 4, context: 64 }
    train:
      tokens: 1536k
      batch_tokens: 768
      lr: 2.0e-3
      warmup: 5%
      optimizer: { betas: [0.9, 0.99] }
"""


def put_away(path):
    """Takes a file or folder out of the way. Removing it now would slow down whoever makes files
    next: ext4 steps over every inode that was freed in the last minutes, one at a time."""
    if os.path.lexists(path):
        trash = tempfile.mkdtemp(prefix="gone", dir=PUT_AWAY)
        os.rename(path, os.path.join(trash, "it"))


# Seconds that each stage of the sweep takes by itself.
NAP = 0.1

SWEPT = f"""preflow: 1
params: {{ a: 0 }}
sources: {{ s: {{ path: src.txt }} }}
stages:
  base: {{ kind: command, inputs: {{ i: s }}, outputs: {{ o: file }}, command: 'sleep {NAP}; cat $IN_i > $OUT_o; echo base >> ran' }}
  point:
    kind: command
    inputs: {{ i: base }}
    outputs: {{ o: file }}
    command: 'sleep {NAP}; echo ${{a}} > $OUT_o; echo "{{\\"score\\": ${{a}}}}" > $FIGURES; echo point >> ran'
"""

# Runs of one row that takes tens of milliseconds: a scheduler alone takes or gives five of them.
SHORT = 15

SWEEP = """preflow-sweep: 1
pipeline: p.yaml
matrix: {{ a: {points} }}
label: a{{a}}
metric: {{ name: point/score, goal: maximize }}
"""


class Preflow:
    """Stages append a line to `ran` when they run; `p` and `q` are used by the middle one."""

    name = "preflow"

    def __init__(self, program):
        self.program = program

    def write(self, place, shape, n, p="p0", q="q0"):
        with open(os.path.join(place, "p.yaml"), "w") as f:
            f.write(f"preflow: 1\nparams: {{p: {p}, q: {q}}}\nsources: {{s: {{path: src.txt}}}}\nstages:\n")
            for i in range(n):
                source = "s" if i == 0 or shape == "fan" else f"a{i - 1}"
                # Numbered: two stages with one identity are made once.
                command = f"cat $IN_i>$OUT_o;echo n{i}>>ran"
                if i == n // 2:
                    command = ": ${q};(cat $IN_i;echo ${p})>$OUT_o;echo m>>ran"
                if "{" in command:
                    command = f"'{command}'"
                # Ten thousand lines must fit into the mebibyte that a pipeline file may have.
                f.write(f" a{i}: {{kind: command,inputs: {{i: {source}}},outputs: {{o: file}},command: {command}}}\n")
            if shape == "fan":
                every = ",".join(f"a{i}" for i in range(n))
                f.write(f" join: {{kind: command,inputs: {{i: [{every}]}},outputs: {{o: file}},command: 'cat $IN_i>$OUT_o;echo>>ran'}}\n")

    def run(self):
        return [self.program, "run", "-q", "p.yaml"]

    def plan(self):
        return [self.program, "plan", "p.yaml"]

    def status(self):
        return [self.program, "status", "p.yaml"]

    def forget(self, place):
        put_away(os.path.join(place, "cache"))

    def drop_outputs(self, place):
        put_away(os.path.join(place, "cache", "views"))


class Ninja(Preflow):
    name = "ninja"

    def write(self, place, shape, n, p="p0", q="q0"):
        os.makedirs(os.path.join(place, "data"), exist_ok=True)
        with open(os.path.join(place, "build.ninja"), "w") as f:
            f.write("rule sh\n  command = $cmd\n")
            for i in range(n):
                source = "src.txt" if i == 0 or shape == "fan" else f"data/{i - 1}"
                command = f"cat {source}>data/{i};echo>>ran"
                if i == n // 2:
                    command = f": {q};(cat {source};echo {p})>data/{i};echo>>ran"
                f.write(f"build data/{i}: sh {source}\n  cmd = {command}\n")
            if shape == "fan":
                every = " ".join(f"data/{i}" for i in range(n))
                f.write(f"build data/join: sh {every}\n  cmd = cat {every}>data/join;echo>>ran\n")

    def run(self):
        return [self.program, "-j" + JOBS, "--quiet"]

    def plan(self):
        return [self.program, "-n", "--quiet"]

    status = plan

    def forget(self, place):
        for what in ("data", ".ninja_log", ".ninja_deps"):
            put_away(os.path.join(place, what))
        os.makedirs(os.path.join(place, "data"))

    drop_outputs = None


class Dvc(Ninja):
    name = "DVC"

    def write(self, place, shape, n, p="p0", q="q0"):
        os.makedirs(os.path.join(place, "data"), exist_ok=True)
        if not os.path.exists(os.path.join(place, ".dvc")):
            subprocess.run([self.program, "init", "-q", "--no-scm"], cwd=place, check=True)
        with open(os.path.join(place, "dvc.yaml"), "w") as f:
            f.write("stages:\n")
            names = [str(i) for i in range(n)] + (["join"] if shape == "fan" else [])
            for i, name in enumerate(names):
                if name == "join":
                    sources = [f"data/{k}" for k in range(n)]
                else:
                    sources = ["src.txt" if i == 0 or shape == "fan" else f"data/{i - 1}"]
                read = "cat " + " ".join(sources)
                write = f": {q};({read};echo {p})" if i == n // 2 else read
                f.write(f"  a{name}:\n    cmd: '{write}>data/{name};echo>>ran'\n    deps: [{','.join(sources)}]\n    outs: [data/{name}]\n")

    def run(self):
        return [self.program, "repro", "-q"]

    def plan(self):
        return [self.program, "status", "-q"]

    status = plan

    def forget(self, place):
        for what in ("data", ".dvc", "dvc.lock"):
            put_away(os.path.join(place, what))

    def drop_outputs(self, place):
        put_away(os.path.join(place, "data"))


class Wrong(Exception):
    """A stage ran that should not have, or the other way round."""


def take_ran(place):
    path = os.path.join(place, "ran")
    if not os.path.exists(path):
        return 0
    with open(path) as f:
        count = sum(1 for _ in f)
    os.remove(path)
    return count


def once(command, place, expected):
    """Milliseconds of one command; `expected` stages must have run (None: any number)."""
    take_ran(place)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    ms = (time.perf_counter() - start) * 1000
    count = take_ran(place)
    lenient = command[1:2] == ["-n"] or command[1:2] == ["status"]
    if done.returncode != 0 and not lenient:
        raise Wrong(f"`{' '.join(command)}` exits {done.returncode}: {done.stderr.decode()[-500:]}")
    if expected is not None and count != expected:
        raise Wrong(f"`{' '.join(command)}` ran {count} stages, {expected} expected")
    return ms


def repeated(times, command, place, expected, before=lambda k: None):
    all_ms = []
    for k in range(times):
        before(k)
        all_ms.append(once(command, place, expected))
    return statistics.median(all_ms)


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows = []
        self.preflow = Preflow(os.path.abspath(args.preflow))
        peers = [(Ninja, "ninja"), (Dvc, "dvc")]
        self.peers = [make(shutil.which(p)) for make, p in peers if shutil.which(p)]
        self.skipped = [f"{p} is not on PATH" for _, p in peers if not shutil.which(p)]
        self.n = 100 if args.quick else 1000
        self.top = tempfile.mkdtemp(prefix="pf")
        global PUT_AWAY
        PUT_AWAY = os.path.join(self.top, "gone")
        os.makedirs(PUT_AWAY)

    def wants(self, name):
        return not self.args.only or self.args.only in name

    def row(self, name, figures, target=None, unit="ms"):
        ours, ninja = figures.get("preflow"), figures.get("ninja", figures.get("torch"))
        fits = unit != "ms" or not self.args.quick
        self.rows.append({
            "row": name, "unit": unit, **figures, "target": target if fits else None,
            "ratio": ours / ninja if ours and ninja else None,
            "met": None if target is None or not fits else ours <= target,
        })
        print(f"  {name}: " + ", ".join(f"{k} {v:.1f}" for k, v in figures.items()), file=sys.stderr)

    def place(self, tool, shape, n):
        place = os.path.join(self.top, f"{tool.name}-{shape}-{n}")
        if not os.path.exists(place):
            os.makedirs(os.path.join(place, ".git"))
            with open(os.path.join(place, "src.txt"), "w") as f:
                f.write("text\n")
            tool.write(place, shape, n)
        return place

    def tools(self, n):
        """DVC takes minutes beyond a hundred stages; rows say `-` there."""
        return [self.preflow] + [t for t in self.peers if t.name != "DVC" or n <= 100]

    def start(self):
        if self.wants("--version"):
            tools = [self.preflow] + [t for t in self.peers if t.name == "ninja"]
            ms = {t.name: repeated(SHORT, [t.program, "--version"], self.top, 0) for t in tools}
            self.row("--version", ms, 3)

    def first(self, shape, target):
        name = f"first run, {shape} of {self.n}"
        if self.wants(name):
            ms = {}
            for tool in self.tools(self.n):
                place = self.place(tool, shape, self.n)

                def fresh(_):
                    tool.forget(place)
                    tool.write(place, shape, self.n)
                ran = self.n + (shape == "fan")
                ms[tool.name] = repeated(3, tool.run(), place, ran, fresh)
            self.row(name, ms, target)

    def nothing(self, n, target):
        name = f"nothing to do, {n} stages"
        if not self.wants(name):
            return
        if n > 1000 and self.args.quick:
            self.skipped.append(f"{name}: --quick")
            return
        ms = {}
        for tool in self.tools(n):
            place = self.made(tool, n)
            ms[tool.name] = repeated(SHORT, tool.run(), place, 0)
        self.row(name, ms, target)

    def made(self, tool, n=None):
        """A chain that is up to date."""
        n = n or self.n
        place = self.place(tool, "chain", n)
        tool.write(place, "chain", n)
        once(tool.run(), place, None)
        return place

    def looks(self):
        for verb in ("plan", "status"):
            name = f"{verb}, {self.n} stages"
            if self.wants(name):
                ms = {}
                for tool in self.tools(self.n):
                    command = getattr(tool, verb)()
                    ms[tool.name] = repeated(SHORT, command, self.made(tool), 0)
                self.row(name, ms, 25)

    def changes(self):
        """Every row begins on a chain that is up to date with `p0` and `q0`."""
        n = self.n
        # Stages from the middle to the end.
        rest = n - n // 2

        def rewrite(tool, place, **values):
            return lambda k: tool.write(place, "chain", n, **{v: f"{w}{k}" for v, w in values.items()})
        for name, target, values, ours, theirs in [
            ("middle param changes its output", 1500, {"p": "new"}, rest, rest),
            ("middle param, same bytes", 40, {"q": "new"}, 1, None),
        ]:
            if self.wants(name):
                ms = {}
                for tool in self.tools(n):
                    place = self.made(tool)
                    expected = ours if tool is self.preflow else theirs
                    ms[tool.name] = repeated(5, tool.run(), place, expected, rewrite(tool, place, **values))
                self.row(name, ms, target)
        name = "param back to a value seen before"
        if self.wants(name):
            ms = {}
            for tool in self.tools(n):
                place = self.made(tool)
                tool.write(place, "chain", n, p="other")
                once(tool.run(), place, None)
                expected = 0 if tool is self.preflow else None
                # Back and forth; both were made once.
                values = ["p0", "other"]
                turn = lambda k: tool.write(place, "chain", n, p=values[k % 2])
                ms[tool.name] = repeated(5, tool.run(), place, expected, turn)
            self.row(name, ms, 150)
        name = "outputs deleted and brought back"
        if self.wants(name):
            ms = {}
            for tool in self.tools(n):
                if tool.drop_outputs:
                    place = self.made(tool)
                    drop = lambda _: tool.drop_outputs(place)
                    ms[tool.name] = repeated(5, tool.run(), place, 0, drop)
            self.row(name, ms, 250)
        name = "source touched"
        if self.wants(name):
            ms = {}
            for tool in self.tools(n):
                place = self.made(tool)
                expected = 0 if tool is self.preflow else None
                touch = lambda _: os.utime(os.path.join(place, "src.txt"))
                ms[tool.name] = repeated(SHORT, tool.run(), place, expected, touch)
            self.row(name, ms, 25)

    def sweep(self):
        """Milliseconds beyond the stages' own time, which is the same whoever runs them."""
        points = 20
        name = f"sweep of {points} points over 2 stages, beyond their own time"
        if not self.wants(name):
            return
        place = os.path.join(self.top, "sweep")
        os.makedirs(os.path.join(place, ".git"))
        for file, text in [("src.txt", "text\n"), ("p.yaml", SWEPT), ("s.yaml", SWEEP.format(points=list(range(1, points + 1))))]:
            with open(os.path.join(place, file), "w") as f:
                f.write(text)
        own = (1 + -(-points // int(JOBS))) * NAP * 1000
        command = [self.preflow.program, "sweep", "run", "-q", "--jobs", JOBS, "s.yaml"]
        # The stage that all points share runs once.
        ms = repeated(3, command, place, 1 + points, lambda _: self.preflow.forget(place))
        self.row(name, {"preflow": ms - own}, 250)

    def hashing(self):
        size = self.args.size or (64 if self.args.quick else 1024)
        name = f"hashing a touched source of {size} MiB"
        if not self.wants(name):
            return
        ms = {}
        for tool in [self.preflow] + [t for t in self.peers if t.name == "DVC"]:
            place = self.place(tool, "chain", 1)
            with open(os.path.join(place, "src.txt"), "wb") as f:
                for _ in range(size):
                    f.write(os.urandom(1 << 20))
            once(tool.run(), place, 1)
            touch = lambda _: os.utime(os.path.join(place, "src.txt"))
            ms[tool.name] = repeated(5, tool.run(), place, 0, touch)
            shutil.rmtree(place)
        self.row(name, ms, 650 * size / 1024)

    def memory(self):
        name = f"peak memory, nothing to do, {self.n} stages"
        if self.wants(name):
            mib = {}
            for tool in self.tools(self.n):
                place = self.made(tool)
                child = os.fork()
                if child == 0:
                    os.chdir(place)
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                    os.execv(tool.program, tool.run())
                _, status, usage = os.wait4(child, 0)
                if status:
                    raise Wrong(f"{tool.name} ended with {status}")
                mib[tool.name] = usage.ru_maxrss / 1024
            self.row(name, mib, 60, "MiB")

    def throughput(self):
        if not self.wants("tokens"):
            return
        worker = os.path.join(os.path.dirname(self.preflow.program), "preflow-worker")
        if not os.path.exists(worker) or self.args.quick:
            self.skipped.append("tokens a second: " + ("--quick" if self.args.quick else "no preflow-worker beside preflow"))
            return
        cache = os.path.join(self.top, "workshop")
        command = [self.preflow.program, "run", "-q", "--cache", cache, "pipelines/workshop.yaml"]
        once(command, ROOT, None)
        peer = {}
        if importlib.util.find_spec("torch"):
            text = subprocess.run([sys.executable, os.path.join(HERE, "bench_torch.py")], capture_output=True, text=True, check=True)
            peer["torch"] = float(text.stdout)
        else:
            self.skipped.append("PyTorch beside the trainer: `torch` cannot be imported")
        rates = {}
        for journal in glob.glob(os.path.join(cache, "runs", "*", "events.jsonl")):
            with open(journal) as f:
                for event in map(json.loads, f):
                    for name, value in (event.get("values") or event.get("summary") or {}).items():
                        if "tokens_per_s" in name and value:
                            rates.setdefault((event["stage"], name), []).append(value)
        if not rates:
            self.skipped.append("tokens a second: the journal of the workshop has none")
        for (stage, name), values in sorted(rates.items()):
            figures = {"preflow": statistics.median(values)}
            self.row(f"{stage}: {name}", figures, unit="tokens/s")
        if peer:
            self.row("PyTorch eager, the workshop's shape", peer, unit="tokens/s")

    def letters(self):
        """A character-level model on a text, trained by preflow and by a plain PyTorch loop."""
        name = "2,000 steps of a character model"
        if not self.wants(name):
            return
        if not self.args.text:
            self.skipped.append(f"{name}: give a text by --text (tinyshakespeare is the usual one)")
            return
        if not importlib.util.find_spec("torch"):
            self.skipped.append(f"{name}: `torch` cannot be imported")
            return
        place = os.path.join(self.top, "letters")
        os.makedirs(os.path.join(place, ".git"))
        with open(self.args.text, encoding="utf-8") as f:
            text = f.read()
        cut = len(text) * 9 // 10
        for part, rows in (("train.txt", text[:cut]), ("held_out.txt", text[cut:])):
            with open(os.path.join(place, part), "w", encoding="utf-8") as f:
                f.write(rows)
        with open(os.path.join(place, "p.yaml"), "w") as f:
            f.write(LETTERS)
        torch = [sys.executable, os.path.join(HERE, "bench_torch.py"), "train.txt", "held_out.txt"]
        seconds, losses = {"preflow": [], "torch": []}, {}
        for _ in range(1 if self.args.quick else 2):
            shutil.rmtree(os.path.join(place, "cache"), ignore_errors=True)
            done = subprocess.run([self.preflow.program, "run", "--json", "p.yaml"], cwd=place, capture_output=True, text=True, check=True)
            events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            model = next(e for e in events if e["event"] == "stage_done" and e["stage"] == "model")
            seconds["preflow"].append(model["seconds"])
            losses["preflow"] = model["summary"]["eval/loss"]
            done = subprocess.run(torch, cwd=place, capture_output=True, text=True, check=True)
            peer = json.loads(done.stdout)
            seconds["torch"].append(peer["seconds"])
            losses["torch"] = peer["loss"]
        times = {tool: statistics.median(values) for tool, values in seconds.items()}
        self.row(f"{name} (peer: PyTorch eager)", times, unit="s")
        self.row("its held-out loss (peer: PyTorch eager)", losses, 1.88, unit="nats")

    def table(self):
        def cell(value):
            digits = 0 if value is None or value >= 100 else 1 if value >= 10 else 2
            return "-" if value is None else f"{value:.{digits}f}"
        print("| row | preflow ms | peer (ninja) ms | DVC ms | ratio to peer | target | met? |")
        print("|---|---|---|---|---|---|---|")
        for row in self.rows:
            unit = "" if row["unit"] == "ms" else f" ({row['unit']})"
            met = {None: "-", True: "yes", False: "NO"}[row["met"]]
            ours = row.get("preflow", row.get("torch"))
            peer = row.get("ninja", row.get("torch") if "preflow" in row else None)
            cells = [ours, peer, row.get("DVC"), row["ratio"], row["target"]]
            print(f"| {row['row']}{unit} | " + " | ".join(map(cell, cells)) + f" | {met} |")
        for why in self.skipped:
            print(f"\nskipped: {why}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preflow", default=os.path.join(ROOT, "target/release/preflow"), metavar="PATH")
    parser.add_argument("--quick", action="store_true", help="100 stages, small files, no targets")
    parser.add_argument("--only", metavar="PATTERN")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the source that is hashed")
    parser.add_argument("--text", metavar="FILE", help="a text of a million letters, for the character model")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    bench = Bench(args)
    try:
        bench.start()
        bench.first("chain", 2600)
        bench.first("fan", 1600)
        bench.nothing(10, 6)
        bench.nothing(bench.n, 20)
        bench.nothing(10000, 150)
        bench.looks()
        bench.changes()
        bench.sweep()
        bench.hashing()
        bench.memory()
        bench.throughput()
        bench.letters()
    except Wrong as wrong:
        bench.table()
        sys.exit(f"error: {wrong}")
    finally:
        shutil.rmtree(bench.top, ignore_errors=True)
    bench.table()
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"rows": bench.rows, "skipped": bench.skipped}, f, indent=1)


if __name__ == "__main__":
    main()
