"""Changes pipelines that are right, a value, a key or a branch of their tree at a time: what comes out
is taken, or refused with its place, soon, and never a fault of the program."""

import copy, json, os

from space import program, shown
import subprocess

ODD = ["", " ", "~", None, [], {}, [[]], {"": ""}, -1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -0.0, 0.1, True, False,
       "x", "X", "a b", "a.b.c", "a/b", "../../etc/passwd", "/dev/zero", "~/x", "s@x", "-", "$p", "${p}", "${", "$$", "$",
       "${p}${p}${p}", "0x10", "1_000", "1e3", "10%", "1k", "1M", "5s", "2h", "yes", "null", "9" * 40, "x" * 100,
       "x" * 5000, "\u202e", "\u0007", "é", "日本", "*", "[a", "**/*", "file://x", "s3://a/b", "nan", "inf", ".nan",
       ["src", "src"], {"path": "src.txt"}, {"kind": "command"}, {"min": 1}, list(range(300)), {str(i): i for i in range(300)}]
PLACE = ("-->", "cannot read", "must say", "line ")


def run(attack):
    trees = bases()
    space = attack.space()
    taken = 0
    for _ in range(attack.count(400)):
        attack.tries += 1
        tree = copy.deepcopy(attack.random.choice(trees))
        for _ in range(attack.random.choice([1, 1, 1, 2, 3, 8])):
            mutate(attack.random, tree)
        # JSON is YAML: nothing of this is refused for how it is written.
        text = json.dumps(tree, ensure_ascii=attack.random.random() < 0.5, indent=attack.random.choice([None, 1]))
        space.write("m.yaml", text)
        verb = attack.random.choice(["check", "check", "graph", "plan", "config", "status"])
        code, said = space.say(verb, "m.yaml", limit=20)
        taken += code == 0
        if code not in (0, 2):
            keep = f"/tmp/attack-mutation-{os.getpid()}-{attack.tries}.yaml"
            with open(keep, "w") as file:
                file.write(text)
            attack.fault(f"{verb} of {keep}: {shown(code, said)}")
        elif code == 2 and not any(place in said for place in PLACE):
            attack.fault(f"{verb} refuses without a place: {shown(code, said)}: {text[:200]}")
        elif "not valid YAML" in said:
            attack.fault(f"JSON is no YAML: {shown(code, said)}: {text[:200]}")
    attack.note = f"{taken} of them taken"


def bases():
    """Pipelines with each kind once, every param as it is by default, and inputs from a source."""
    done = subprocess.run([program(), "kinds", "--json"], capture_output=True, check=True)
    trees = []
    for kind in json.loads(done.stdout):
        stage, sources = {"kind": kind["name"]}, {"src": {"path": "src.txt"}}
        for port in kind["inputs"]:
            sources[f"of_{port['name']}"] = {"path": "src.txt", "as": port["accepts"][0].replace("*", "text")}
            stage[port["name"]] = f"of_{port['name']}"
        stage.update(defaults(kind["params"]))
        stage["run"] = {"threads": 1, "timeout": "1h", "retries": 2, "env": ["A"]}
        trees.append({"preflow": 1, "name": "p", "params": {"p": 1, "q": "$p"}, "profiles": {"x": {"p": 2}},
                      "sources": {**sources, "more": {"path": "*.txt", "as": "text"}},
                      "stages": {"one": stage}})
    command = {"kind": "command", "inputs": {"i": "src"}, "outputs": {"o": "file"}, "command": "cp $IN_i $OUT_o"}
    chain = {f"s{i}": {**command, "inputs": {"i": "src" if i == 0 else f"s{i - 1}", "more": ["src", "more"]}} for i in range(5)}
    chain["s4"]["gate"] = {"accuracy": ">= 0.5"}
    trees += [{**copy.deepcopy(trees[0]), "stages": copy.deepcopy(chain)} for _ in range(5)]
    return trees


def defaults(schema):
    found = {}
    for name, field in (schema.get("properties") or {}).items():
        if "default" in field:
            found[name] = field["default"]
        elif "properties" in field:
            found[name] = defaults(field)
        elif field.get("type") in ("integer", "number"):
            found[name] = field.get("minimum", 1)
        elif field.get("type") == "string":
            found[name] = (field.get("enum") or ["text"])[0]
    return found


def places(tree, path=()):
    yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from places(tree[key], (*path, key))
    elif isinstance(tree, list):
        for number in range(min(len(tree), 5)):
            yield from places(tree[number], (*path, number))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def mutate(random, tree):
    paths = [path for path in places(tree) if path]
    if not paths:
        return
    path = random.choice(paths)
    parent, key = at(tree, path[:-1]), path[-1]
    way = random.randrange(8)
    if way <= 2:
        parent[key] = copy.deepcopy(random.choice(ODD))
    elif way == 3:
        del parent[key]
    elif way == 4 and isinstance(parent, dict):
        # YAML has a limit for keys.
        names = [str(p[-1]) for p in paths] + [odd for odd in ODD if isinstance(odd, str) and len(odd) < 1000]
        parent[random.choice(names)] = copy.deepcopy(parent[key])
    elif way == 5:
        parent[key] = copy.deepcopy(at(tree, random.choice(paths)))
    elif way == 6:
        parent[key] = [copy.deepcopy(parent[key])] * random.choice([1, 2, 50])
    else:
        deep = copy.deepcopy(parent[key])
        for _ in range(random.choice([1, 2, 20, 60, 200])):
            deep = {"a": deep}
        parent[key] = deep
