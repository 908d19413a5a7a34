"""A workspace to attack, and what every part counts."""

import os, resource, shutil, signal, subprocess, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTED = {0, 1, 2, 3, 4}
# Address space of an attacked program; libraries and threads take some of it.
MEMORY = 8 << 30

# A file, a folder, figures behind a gate, and one stage aside.
PIPELINE = """preflow: 1
name: p
sources: { src: { path: src.txt } }
stages:
  a: { kind: command, inputs: { i: src }, outputs: { o: file }, command: 'cat $IN_i > $OUT_o; echo a >> $OUT_o' }
  tree: { kind: command, inputs: { i: a }, outputs: { o: file }, command: 'mkdir -p $OUT_o/sub; cp $IN_i $OUT_o/sub/x; seq 2000 > $OUT_o/y' }
  score:
    kind: command
    inputs: { i: tree }
    outputs: { o: file }
    command: 'cat $IN_i/y > $OUT_o; echo "{\\"accuracy\\": 0.75}" > $FIGURES'
    gate: { accuracy: ">= 0.5" }
  z: { kind: command, inputs: { i: score }, outputs: { o: file }, command: 'wc -l < $IN_i > $OUT_o' }
  side: { kind: command, inputs: { i: src }, outputs: { o: file }, command: 'cp $IN_i $OUT_o; sleep 0.01' }
"""


def program(name="preflow"):
    given = os.environ.get("PREFLOW")
    if given and name == "preflow":
        return given
    for build in ("release", "debug"):
        path = os.path.join(ROOT, "target", build, name)
        if os.path.exists(path):
            return path
    raise SystemExit(f"there is no {name}: cargo build --release")


class Attack:
    """Tries and faults of one part."""

    def __init__(self, part, times, random):
        self.part, self.times, self.random = part, times, random
        self.tries, self.faults, self.note, self.folders = 0, [], "", []

    def count(self, usual):
        return max(1, round(usual * self.times))

    def fault(self, what):
        self.faults.append(what)
        print(f"  FAULT in {self.part}, try {self.tries}: {what}", flush=True)

    def folder(self):
        self.folders.append(tempfile.mkdtemp(prefix="attack-"))
        return self.folders[-1]

    def space(self, text=PIPELINE):
        return Space(self.folder(), text)

    def clear(self):
        for folder in self.folders:
            remove(folder)
        self.folders = []


def remove(folder):
    subprocess.run(["chmod", "-R", "u+w", folder], stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


class Space:
    """A folder with a pipeline, and the program in it."""

    def __init__(self, folder, text):
        self.folder = folder
        os.makedirs(self.path(".git"), exist_ok=True)
        self.write("p.yaml", text)
        self.write("src.txt", "text\n")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(text)

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFLOW")}
        return {**kept, "XDG_STATE_HOME": self.path(".state"), "NO_COLOR": "1", **more}

    def start(self, *words, **more):
        return subprocess.Popen(
            [program(), *words], cwd=self.folder, env=self.environment(**more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)

    def say(self, *words, limit=30, **more):
        """Exit code and words; `None` in the place of the code: it did not end."""
        child = self.start(*words, **more)
        resource.prlimit(child.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            out, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return None, f"no end after {limit} s"
        return child.returncode, out.decode(errors="replace")

    def outputs(self, folder="cache"):
        """Stage and port → name of the object."""
        top = self.path(f"{folder}/views/p")
        found = {}
        for stage in sorted(os.listdir(top)):
            for port in os.listdir(os.path.join(top, stage)):
                link = os.readlink(os.path.join(top, stage, port))
                found[f"{stage}/{port}"] = os.path.basename(link)
        return found

    def files(self, folder):
        found = []
        for top, _, names in os.walk(self.path(folder)):
            found += [os.path.join(top, name) for name in names]
        return sorted(found)

    def left(self):
        """Numbers of processes that a run of this workspace left behind."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    marked = b"PREFLOW_RUN=" in file.read()
                here = os.readlink(f"/proc/{pid}/cwd").startswith(self.folder)
            except OSError:
                continue
            if marked and here:
                found.append(int(pid))
        return found


def shown(code, text):
    last = " / ".join(text.strip().splitlines()[-3:])
    return f"exit {code}: {last[:400]}"
