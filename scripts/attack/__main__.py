#!/usr/bin/env python3
"""Attacks preflow as bad luck and bad people would, and counts what it gets wrong.

`make attack` takes about ten minutes; `--times 20` takes hours. `--only kills,flips` picks parts,
`--seed N` repeats a run. Exit 1 when there was a fault.
"""

import argparse, os, random, sys, time, traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import beside, clones, cuts, files, flips, fuzz, kills, limits, mutations, slow
from space import Attack

PARTS = [kills, cuts, flips, beside, files, mutations, clones, slow, limits, fuzz]


def main():
    named = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(named), help="parts, with commas between them")
    parser.add_argument("--times", type=float, default=1.0, help="how many times as many tries")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    unknown = [name for name in args.only.split(",") if name not in named]
    if unknown:
        parser.error(f"no part {unknown[0]}; there are {', '.join(named)}")
    print(f"seed {args.seed}", flush=True)
    rows, bad = [], 0
    for name in args.only.split(","):
        attack = Attack(name, args.times, random.Random(f"{args.seed} {name}"))
        begun = time.monotonic()
        try:
            named[name].run(attack)
        except Exception:
            attack.fault(traceback.format_exc())
        finally:
            attack.clear()
        seconds = time.monotonic() - begun
        rows.append((name, attack.tries, len(attack.faults), seconds, attack.note))
        bad += len(attack.faults)
        print(f"  {name}: {attack.tries} tries, {len(attack.faults)} faults", flush=True)
    print(f"\n{'part':<10} {'tries':>7} {'faults':>7} {'seconds':>8}")
    for name, tries, faults, seconds, note in rows:
        print(f"{name:<10} {tries:>7} {faults:>7} {seconds:>8.0f}  {note}".rstrip())
    print(f"{bad} faults; seed {args.seed}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
