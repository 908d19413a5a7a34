"""Six runs at once, with checks, repairs and collections of garbage beside them: all end well."""

from space import shown


def run(attack):
    space = attack.space()
    rounds = collected = 0
    while attack.tries < attack.count(180):
        rounds += 1
        # Every third round there is something to make.
        space.write("src.txt", f"text {rounds // 3}\n")
        force = ["--force", "side"] if rounds % 2 else []
        runs = [space.start("run", "-q", "p.yaml", *force) for _ in range(6)]
        attack.tries += len(runs)
        for words in (["verify"], ["verify", "--repair"], ["gc", "--yes", "--grace", "0"]):
            code, text = space.say(*words)
            # A collection refuses while runs are going on.
            collected += words[0] == "gc" and code == 0
            waits = words[0] == "gc" and code == 2 and "a run is using this store" in text
            if code != 0 and not waits:
                attack.fault(f"{' '.join(words)} beside runs: {shown(code, text)}")
        for child in runs:
            try:
                out, _ = child.communicate(timeout=60)
            except Exception:
                child.kill()
                out, _ = child.communicate()
                attack.fault("a run beside others does not end")
                continue
            if child.returncode != 0:
                attack.fault(f"a run beside others: {shown(child.returncode, out.decode())}")
    code, text = space.say("verify")
    if code != 0:
        attack.fault(f"verify at the end: {shown(code, text)}")
    calm = attack.space()
    calm.write("src.txt", f"text {rounds // 3}\n")
    calm.say("run", "-q", "p.yaml")
    if space.outputs() != calm.outputs():
        attack.fault("the results are others than those of a calm run")
    attack.note = f"{collected} collections in {rounds} rounds"
