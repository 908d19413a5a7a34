"""Kills a run, its group or one of its stages at any moment: nothing is damaged or left behind,
and a second run ends as if nothing had happened."""

import os, signal, time

from space import shown


def run(attack):
    calm = attack.space()
    code, text = calm.say("run", "-q", "p.yaml")
    assert code == 0, text
    right = calm.outputs()
    space = attack.space()
    for turn in range(attack.count(150)):
        attack.tries += 1
        # Another text now and then, so that there is something to make.
        if turn % 3 == 0:
            space.write("src.txt", "text\n" * (1 + turn % 2))
        child = space.start("run", "-q", "p.yaml", *(["--force", "a"] if turn % 2 else []))
        time.sleep(attack.random.uniform(0, 0.09))
        how = attack.random.choice(["orchestrator", "group", "stage"])
        victims = space.left() if how == "stage" else []
        try:
            if how == "group":
                os.killpg(child.pid, signal.SIGKILL)
            elif how == "stage" and victims:
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
    space.write("src.txt", "text\n")
    space.say("run", "-q", "p.yaml")
    if space.outputs() != right:
        attack.fault("the results are others than those of a calm run")


