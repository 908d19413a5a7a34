"""Kills a run, its group or one of its stages at any moment: nothing is damaged or left behind,
and a second run ends as if nothing had happened. Only kills of a run that was alive count."""

import os, signal, time

from space import PIPELINE, shown

# Stages that take a while, so that kills strike. A shell goes on when a program of its own is killed,
# unless it is told not to: what it makes then is its own affair.
SLOW = PIPELINE.replace("command: '", "command: 'set -e; sleep 0.02; ")
TEXTS = ["text\n", "text\ntext\n"]


def run(attack):
    right = []
    for text in TEXTS:
        calm = attack.space(SLOW)
        calm.write("src.txt", text)
        code, said = calm.say("run", "-q", "p.yaml")
        assert code == 0, said
        right.append(calm.outputs())
    space = attack.space(SLOW)
    struck = {}
    turn = 0
    while attack.tries < attack.count(150):
        turn += 1
        space.write("src.txt", TEXTS[turn % 2])
        child = space.start("run", "-q", "p.yaml", "--from", attack.random.choice(["a", "tree", "score"]))
        how = attack.random.choice(["orchestrator", "group", "stage"])
        if attack.random.random() < 0.5:
            until = time.monotonic() + 1
            while not space.left() and child.poll() is None and time.monotonic() < until:
                pass
        time.sleep(attack.random.uniform(0, 0.1))
        victims = space.left() if how == "stage" else []
        if child.poll() is None and (how != "stage" or victims):
            attack.tries += 1
            struck[how] = struck.get(how, 0) + 1
        try:
            if how == "group":
                os.killpg(child.pid, signal.SIGKILL)
            elif how == "stage":
                if victims:
                    os.kill(attack.random.choice(victims), signal.SIGKILL)
            else:
                child.kill()
        except ProcessLookupError:
            pass
        child.communicate()
        code, text = space.say("verify")
        if code != 0:
            attack.fault(f"after a kill of the {how}: verify, {shown(code, text)}")
        until = time.monotonic() + 5
        while space.left() and time.monotonic() < until:
            time.sleep(0.02)
        if space.left():
            attack.fault(f"a kill of the {how} left processes {space.left()}")
        code, text = space.say("run", "-q", "p.yaml")
        if code != 0:
            attack.fault(f"after a kill of the {how}: run, {shown(code, text)}")
        elif space.outputs() != right[turn % 2]:
            attack.fault(f"after a kill of the {how}: the results are others than those of a calm run")
    attack.note = ", ".join(f"{struck[how]} of the {how}" for how in sorted(struck))
