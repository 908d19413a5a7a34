"""What the system does not lend: few open files, small files, few processes, no output, little disk
and memory. A message and a documented exit code; the next run ends well."""

import os, shutil, subprocess

from space import DOCUMENTED, program, shown


def run(attack):
    cases = [f"ulimit -n {n}" for n in (4, 6, 8, 16, 32, 41, 48, 64)]
    cases += [f"ulimit -f {n}" for n in (0, 1, 2, 3, 8, 64)]
    cases += [f"ulimit -v {n}" for n in (60_000, 120_000, 200_000, 400_000)]
    cases += ["exec > /dev/full", "exec 2> /dev/full", "exec > /dev/full 2> /dev/full", "exec >&- 2>&-", "exec <&-"]
    for before in cases:
        for verb in ("run -q p.yaml", "run -j 8 --force a p.yaml", "plan p.yaml", "verify"):
            attempt(attack, before, verb)
    if os.geteuid() == 0 and shutil.which("setpriv"):
        for few in (1, 2, 3, 5, 8, 12, 20):
            attempt(attack, f"ulimit -u {few}", "run -q p.yaml", nobody=True)
    else:
        attack.note = "processes were not limited: that needs root"


def attempt(attack, before, verb, nobody=False):
    attack.tries += 1
    space = attack.space()
    words = f"{before}; exec {program()} {verb}"
    command = ["bash", "-c", words]
    if nobody:
        # The limit counts all processes of a user: one that nobody else is.
        user = str(40_000 + attack.tries)
        subprocess.run(["chown", "-R", user, space.folder], check=True)
        os.chmod(space.folder, 0o755)
        command = ["setpriv", f"--reuid={user}", "--clear-groups", *command]
    try:
        done = subprocess.run(command, cwd=space.folder, env=space.environment(), timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        code, text = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        code, text = None, "no end"
    # Without memory any program may end anywhere; what counts is what it leaves. The shell itself
    # may find no room for another process, the loader none for a library.
    elsewhere = "-v" in before or "error:" not in text and ("fork" in text or "shared" in text)
    if code not in DOCUMENTED and not elsewhere:
        attack.fault(f"{before}, {verb}: {shown(code, text)}")
    if nobody:
        subprocess.run(["chown", "-R", "root", space.folder], check=True)
    code, text = space.say("run", "-q", "p.yaml")
    if code != 0:
        attack.fault(f"after {before}, {verb}: {shown(code, text)}")
