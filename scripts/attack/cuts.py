"""Pulls the plug: a file system of its own loses all that was not synced. What is visible then is
whole, and a vote that was acknowledged is there. Needs root and a loop device."""

import fcntl, json, os, struct, subprocess, time

import people
from space import Space, shown

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4
NO_FLUSH = 2


class Disk:
    def __init__(self, folder):
        self.image, self.top = os.path.join(folder, "image"), os.path.join(folder, "disk")
        os.mkdir(self.top)
        with open(self.image, "wb") as file:
            file.truncate(96 << 20)
        call("mkfs.ext4", "-q", "-F", self.image)
        self.mount()

    def mount(self):
        call("mount", "-o", "loop,commit=1", self.image, self.top)

    def cut(self):
        file = os.open(self.top, os.O_RDONLY)
        try:
            fcntl.ioctl(file, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(file)

    def again(self):
        self.unmount()
        self.mount()

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.top], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        call("umount", "-l", self.top)


def call(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def run(attack):
    for part, usual in ((runs, 20), (votes, 10)):
        left = attack.count(usual)
        while left > 0:
            try:
                disk = Disk(attack.folder())
            except (OSError, subprocess.CalledProcessError) as error:
                attack.note = f"not tried: no file system of its own can be mounted ({error})"
                return
            # It is small: another one before it is full.
            turns = min(left, 20)
            left -= turns
            try:
                part(attack, disk, turns)
            finally:
                disk.unmount()
                os.remove(disk.image)


def runs(attack, disk, turns):
    space = Space(os.path.join(disk.top, "space"), PIPELINE_OF_MANY)
    os.sync()
    for turn in range(turns):
        attack.tries += 1
        space.write("src.txt", f"text {turn}\n")
        os.sync()
        child = space.start("run", "-q", "p.yaml")
        time.sleep(attack.random.uniform(0, 0.4))
        disk.cut()
        child.kill()
        child.communicate()
        until = time.monotonic() + 5
        while space.left() and time.monotonic() < until:
            time.sleep(0.02)
        disk.again()
        for words in (["verify"], ["run", "-q", "p.yaml"], ["verify"]):
            code, text = space.say(*words)
            if code != 0:
                attack.fault(f"after a cut: {words[0]}, {shown(code, text)}")
    code, text = space.say("run", "p.yaml")
    if "nothing to do" not in text:
        attack.fault(f"the store does not settle: {shown(code, text)}")
    calm = attack.space(PIPELINE_OF_MANY)
    calm.write("src.txt", f"text {turns - 1}\n")
    calm.say("run", "-q", "p.yaml")
    if space.outputs() != calm.outputs():
        attack.fault("the results are others than those of a calm run")


PIPELINE_OF_MANY = "preflow: 1\nname: p\nsources: { src: { path: src.txt } }\nstages:\n" + "".join(
    f"  a{i}: {{ kind: command, inputs: {{ i: {'src' if i == 0 else f'a{i - 1}'} }}, outputs: "
    f"{{ o: file }}, command: 'cat $IN_i > $OUT_o; seq {i * 300} >> $OUT_o' }}\n" for i in range(24))

def votes(attack, disk, turns):
    """Votes while the plug is pulled."""
    space = Space(os.path.join(disk.top, "labels"), people.LABELS)
    people.pairs(space, 5000)
    acknowledged = set()
    os.sync()
    for turn in range(turns):
        attack.tries += 1
        server, client = people.serve(space)
        until = time.monotonic() + attack.random.uniform(0.05, 0.6)
        number = 0
        while time.monotonic() < until:
            vote = client.vote(f"{turn}-{number}")
            if vote is None:
                break
            acknowledged.add(vote)
            number += 1
        disk.cut()
        server.kill()
        server.communicate()
        disk.again()
        there = set()
        try:
            with open(space.path("votes/ann.jsonl")) as file:
                for line in file:
                    if line.endswith("\n"):
                        there.add(json.loads(line)["id"])
        except FileNotFoundError:
            pass
        lost = acknowledged - there
        if lost:
            attack.fault(f"{len(lost)} of {len(acknowledged)} acknowledged votes are lost")
            acknowledged -= lost
    known = int(attack.note.split()[0]) if attack.note else 0
    attack.note = f"{known + len(acknowledged)} votes acknowledged"
