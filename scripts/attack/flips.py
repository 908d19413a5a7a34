"""Turns a bit, cuts or swaps a file of the store or of a folder that a team shares: nothing wrong
is ever believed, every exit code is a documented one, and a repair brings everything back."""

import os, shutil

from space import DOCUMENTED, Space, remove, shown


def run(attack):
    calm = attack.space()
    remote = f"preflow-workspace: 1\nremote: {{ url: {calm.path('remote')} }}\n"
    calm.write("preflow.yaml", remote)
    for words in (["run", "-q", "p.yaml"], ["run", "-q", "p.yaml"]):
        code, text = calm.say(*words)
        assert code == 0, text
    right = calm.outputs()
    for turn in range(attack.count(250)):
        attack.tries += 1
        top = os.path.join(attack.folder(), "w")
        shutil.copytree(calm.folder, top, symlinks=True)
        space = Space.__new__(Space)
        space.folder = top
        in_remote = turn % 5 == 4
        if in_remote:
            space.write("preflow.yaml", remote.replace(calm.folder, top))
            shutil.rmtree(space.path(".state"), ignore_errors=True)
            remove(space.path("cache"))
        how = damage(attack.random, space.files("remote" if in_remote else "cache"))
        said = []
        for words in (["plan", "p.yaml"], ["verify"], ["run", "-q", "p.yaml"]):
            code, text = space.say(*words)
            said.append(code)
            if code not in DOCUMENTED:
                attack.fault(f"{how}: {words[0]}, {shown(code, text)}")
        if said[2] == 0 and space.outputs() != right:
            attack.fault(f"{how}: a run ended well with other results")
        for words in (["verify", "--repair"], ["run", "-q", "p.yaml"]):
            code, text = space.say(*words)
        if code != 0 or space.outputs() != right:
            attack.fault(f"{how}: not mended, {shown(code, text)}")
        for name in space.outputs().values():
            check(attack, how, space, name)
        remove(os.path.dirname(top))


def damage(random, files):
    path = random.choice([f for f in files if os.path.isfile(f) and not os.path.islink(f)])
    with open(path, "rb") as file:
        data = bytearray(file.read())
    os.chmod(path, 0o644)
    way = random.choice(["bit", "bit", "bit", "cut", "zeros", "swap", "gone", "more"])
    if way == "bit" and data:
        place = random.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
        way = f"bit {place}"
    elif way == "cut":
        data = data[: random.randrange(len(data) + 1)]
    elif way == "zeros":
        data = bytearray(len(data))
    elif way == "more":
        data += b"\n"
    elif way == "swap":
        other = random.choice([f for f in files if os.path.isfile(f)])
        with open(other, "rb") as file:
            data = bytearray(file.read())
    if way == "gone":
        os.remove(path)
    else:
        with open(path, "wb") as file:
            file.write(data)
    return f"{way} of {path[path.index('/w/') + 3:]}"


def check(attack, how, space, name):
    """What a view leads to has the bytes of its name."""
    import hashlib
    path = space.path(f"cache/objects-v1/{name[:2]}/{name}")
    if os.path.isfile(path):
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != name:
                attack.fault(f"{how}: object {name[:8]} is damaged after a repair")
