"""The targets of `fuzz/`, for a while each. Needs cargo-fuzz, which is installed where it is not."""

import os, shutil, subprocess

from space import ROOT

SECONDS = 60


def run(attack):
    folder = os.path.join(ROOT, "fuzz")
    if not os.path.isdir(folder):
        attack.note = "not tried: there are no targets"
        return
    if subprocess.run(["cargo", "fuzz", "--version"], capture_output=True).returncode != 0:
        print("  installing cargo-fuzz", flush=True)
        subprocess.run(["cargo", "install", "--quiet", "--locked", "cargo-fuzz"], check=False)
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    listed = subprocess.run(["cargo", "fuzz", "list"], cwd=ROOT, env=environment, capture_output=True, text=True)
    if listed.returncode != 0:
        attack.note = "not tried: cargo-fuzz cannot be used here"
        return
    runs = 0
    for target in listed.stdout.split():
        attack.tries += 1
        seconds = round(SECONDS * min(attack.times, 20))
        command = ["cargo", "fuzz", "run", "-O", "-s", "none", target, "--", f"-max_total_time={seconds}", "-rss_limit_mb=512", "-timeout=10"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            attack.fault(f"{target}: {done.stderr.strip().splitlines()[-1:]}")
        for line in done.stderr.splitlines():
            if line.startswith("Done "):
                runs += int(line.split()[1])
    attack.note = f"{runs} inputs"
