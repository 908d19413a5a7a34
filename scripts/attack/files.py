"""Named pipes, devices, links and absurd sizes where files are expected: a documented exit code at
once, in little memory, and nothing waits."""

import os, resource, stat, tempfile

from space import DOCUMENTED, remove, shown

SWEEP = "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { n: [1, 2] }\n"
# Where files lie that must not be shown.
SECRETS = None
# What may be asked while the file is odd.
VERBS = ["check p.yaml", "plan p.yaml", "run -q p.yaml", "status p.yaml", "verify", "gc", "runs",
         "report p.yaml", "lock p.yaml", "doctor", "sweep plan s.yaml", "trace p.yaml a", "why p.yaml a"]


def run(attack):
    global SECRETS
    SECRETS = attack.folder()
    places = ["p.yaml", "preflow.yaml", "s.yaml", "src.txt", "p.lock", "part.yaml", "cache/lease.lock"]
    sample = attack.space()
    prepare(sample)
    for name in sample.files("cache") + sample.files("remote"):
        if not os.path.islink(name):
            places.append(os.path.relpath(name, sample.folder))
    chosen = places[:7] + attack.random.sample(places[7:], min(len(places) - 7, attack.count(16)))
    for place in chosen:
        for kind in ("pipe", "device", "folder", "huge", "secret", "loop"):
            # A source may be that large; it is read.
            if (place, kind) == ("src.txt", "huge"):
                continue
            space = attack.space()
            prepare(space)
            # Names of entries and objects are the same everywhere, those of runs are not.
            if not os.path.lexists(os.path.dirname(space.path(place))):
                continue
            odd(space.path(place), kind)
            for words in attack.random.sample(VERBS, 4):
                attack.tries += 1
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                code, text = space.say(*words.split(), limit=20)
                after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                if code not in DOCUMENTED:
                    attack.fault(f"{kind} at {place}: {words}, {shown(code, text)}")
                if after > before and after > 512 << 10:
                    attack.fault(f"{kind} at {place}: {words} took {after >> 10} MiB")
                if "hunter2" in text:
                    attack.fault(f"{kind} at {place}: {words} shows what it should not")
            remove(space.folder)


def prepare(space):
    space.write("preflow.yaml", "preflow-workspace: 1\nremote: { url: remote }\n")
    space.write("s.yaml", SWEEP)
    with open(space.path("p.yaml"), "a") as file:
        file.write("  part: !include part.yaml\n")
    space.write("part.yaml", "{ kind: command, outputs: { o: file }, command: 'echo > $OUT_o' }\n")
    space.say("run", "-q", "p.yaml")


def odd(path, kind):
    if os.path.lexists(path):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.chmod(os.path.dirname(path), 0o755)
        os.remove(path)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        os.symlink("/dev/zero", path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(30 << 30)
    elif kind == "loop":
        os.symlink(os.path.basename(path), path)
    else:
        outside = os.path.join(tempfile.mkdtemp(prefix="attack-", dir=SECRETS), "secret")
        with open(outside, "w") as file:
            file.write("hunter2: [\n")
        os.symlink(outside, path)
