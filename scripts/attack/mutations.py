"""Changes pipeline files that are right, a value, a key, an indentation at a time: what comes out is
taken, or refused with its place, soon, and never a fault of the program."""

import glob, os, re

from space import ROOT, shown

ODD = ["", "~", "null", "[]", "{}", "-1", "0", "1e999", ".nan", "true", "'", "\"", "a: b", "- x", "*x", "&x y",
       "!include nowhere.yaml", "!x y", "$p", "${p}", "${", "$$", "0x10", "1_000", "yes", "9" * 40,
       "\u202e", "\u0000", "\ud7ff", "x" * 5000, "[" * 200, "{a: " * 200, "2026-01-01", "1:30", "<<", "a.b.c",
       "../../etc/passwd", "/dev/zero", "s@x", "-", "?", "%", "@", "`"]
PLACE = re.compile(r"\w+\.yaml:\d+|line \d+|-->|cannot read|unknown kind|error:")


def run(attack):
    patterns = ["pipelines/*.yaml", "pipelines/*/*.yaml", "templates/*/pipelines/*.yaml"]
    found = [f for p in patterns for f in glob.glob(os.path.join(ROOT, p))]
    texts = [open(path, encoding="utf-8").read() for path in sorted(found)]
    space = attack.space()
    for _ in range(attack.count(400)):
        attack.tries += 1
        text = attack.random.choice(texts)
        for _ in range(attack.random.choice([1, 1, 1, 2, 5])):
            text = mutated(attack.random, text)
        with open(space.path("m.yaml"), "wb") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
        verb = attack.random.choice(["check", "check", "graph", "plan", "config"])
        code, said = space.say(verb, "m.yaml", limit=20)
        if code not in (0, 2):
            keep = os.path.join("/tmp", f"attack-mutation-{attack.tries}.yaml")
            with open(keep, "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
            attack.fault(f"{verb} of {keep}: {shown(code, said)}")
        elif code == 2 and not PLACE.search(said):
            attack.fault(f"{verb} refuses without a place: {shown(code, said)}")


def mutated(random, text):
    lines = text.split("\n")
    place = random.randrange(len(lines))
    line = lines[place]
    way = random.randrange(9)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(place, line)
    elif way == 2 and ":" in line:
        lines[place] = line.split(":")[0] + ": " + random.choice(ODD)
    elif way == 3:
        lines[place] = " " * random.randrange(12) + line.lstrip()
    elif way == 4:
        other = random.randrange(len(lines))
        lines[place], lines[other] = lines[other], line
    elif way == 5:
        values = re.findall(r"[\w.$-]+", text)
        words = re.findall(r"[\w.$-]+", line)
        if words:
            lines[place] = line.replace(random.choice(words), random.choice(values + ODD), 1)
    elif way == 6 and line:
        at = random.randrange(len(line))
        lines[place] = line[:at] + random.choice("{}[],:#&*!|>'\"%@`\t -?\u00a0\ufeff\x1b") + line[at + 1:]
    elif way == 7:
        words = re.findall(r"\w+", line)
        if words:
            lines[place] = line.replace(random.choice(words), random.choice(ODD), 1)
    else:
        end = min(len(lines), place + random.randrange(1, 6))
        lines[place:end] = lines[place:end] * random.choice([0, 2, 3])
    return "\n".join(lines)
