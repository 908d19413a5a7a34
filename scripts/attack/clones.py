"""A repository that somebody cloned: whatever it carries, no verb that only looks starts anything."""

import os, subprocess

from space import DOCUMENTED, shown

VERBS = ["check p.yaml", "plan p.yaml", "plan", "status p.yaml", "why p.yaml a", "graph p.yaml", "config p.yaml",
         "doctor", "kinds", "schema", "gc", "gc --yes --grace 0", "verify", "metrics p.yaml", "report p.yaml",
         "diff HEAD --file p.yaml", "lock p.yaml", "logs p.yaml a", "runs", "trace p.yaml a", "sweep plan s.yaml",
         "trust --list", "run p.yaml side"]


def run(attack):
    for carried in ("workspace file", "git", "store", "all"):
        space = attack.space()
        pwned = space.path("pwned")
        evil = f"sh -c 'echo x >> {pwned}; cat'"
        space.write("s.yaml", "preflow-sweep: 1\npipeline: p.yaml\nmatrix: { n: [1] }\n")
        os.rmdir(space.path(".git"))
        git(space, "init", "-q")
        git(space, "add", "p.yaml", "src.txt")
        git(space, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
        if carried in ("workspace file", "all"):
            worker = f"[sh, -c, \"echo x >> {pwned}; echo '{{}}'\"]"
            space.write("preflow.yaml", f"preflow-workspace: 1\nworkers: {{ w: {{ command: {worker} }} }}\n")
        if carried in ("git", "all"):
            space.write(".git/info/attributes", "* filter=x diff=x\n")
            for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.x.textconv", "diff.external",
                        "core.pager", "core.sshCommand", "gpg.program", "core.editor", "core.askPass"):
                git(space, "config", key, evil)
            for hook in ("post-index-change", "pre-commit", "post-checkout", "reference-transaction"):
                space.write(f".git/hooks/{hook}", f"#!/bin/sh\necho x >> {pwned}\n")
                os.chmod(space.path(f".git/hooks/{hook}"), 0o755)
            if os.path.exists(pwned):
                os.remove(pwned)
        if carried in ("store", "all"):
            precious = space.path("precious")
            os.makedirs(precious)
            space.write("precious/file", "text")
            os.makedirs(space.path("cache/label"))
            space.write("cache/label/key", "A" * 32)
            os.symlink("../precious", space.path("cache/quarantine"))
        for verb in VERBS:
            attack.tries += 1
            code, text = space.say(*verb.split())
            if code not in DOCUMENTED:
                attack.fault(f"{verb} in a repository with {carried}: {shown(code, text)}")
            if os.path.exists(pwned):
                attack.fault(f"{verb} starts what a repository with {carried} names")
                os.remove(pwned)
            if carried in ("store", "all") and not os.path.exists(space.path("precious/file")):
                attack.fault(f"{verb} removes files outside of the store")


def git(space, *words):
    subprocess.run(["git", "-C", space.folder, *words], check=True, capture_output=True)
