"""A worker of one's own, in the standard library of Python: `worker.py describe` prints what kinds
it offers, `worker.py run TASK` performs one task. The orchestrator checks and completes the params
by the schema below, and keeps what is made as it keeps everything else.
"""

import json
import os
import string
import sys
import threading

PROTOCOL = 1

CATALOG = {
    "protocol": PROTOCOL,
    "kinds": [
        {
            "name": "prompts_from",
            # Bump it whenever equal inputs and params would give other bytes.
            "version": 1,
            "summary": "fill a template with the fields of each row",
            "inputs": [
                {"name": "rows", "accepts": ["*"], "doc": "JSON lines whose fields the template names"}
            ],
            "outputs": [
                {
                    "name": "prompts",
                    "type": "dataset/prompt",
                    "extension": "jsonl",
                    "doc": "a prompt a row",
                }
            ],
            "params": {
                "type": "object",
                "additionalProperties": False,
                "required": ["template"],
                "properties": {
                    "template": {
                        "type": "string",
                        "minLength": 1,
                        "description": "Text with {field} where a field of the row goes.",
                    },
                    "most": {
                        "type": "integer",
                        "minimum": 0,
                        "x-unit": "count",
                        "default": 0,
                        "description": "Rows taken from the start; 0: all.",
                    },
                },
            },
            "threads": 1,
        }
    ],
}


class Refusal(Exception):
    """Something that the user can mend."""


def say(event, **fields):
    """One event: one line of JSON on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)


def prompts_from(task):
    """One prompt a row of the input."""
    params = task["params"]
    wanted = {name for _, name, _, _ in string.Formatter().parse(params["template"]) if name}
    [rows] = task["inputs"]["rows"]
    prompts = []
    for path in rows["paths"]:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if params["most"] and len(prompts) == params["most"]:
                    break
                row = json.loads(line)
                if missing := sorted(wanted - row.keys()):
                    raise Refusal(f"row {number} of {path} has no field {missing[0]!r}")
                prompts.append(params["template"].format(**row))
    with open(task["outputs"]["prompts"], "w", encoding="utf-8") as file:
        for prompt in prompts:
            file.write(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n")
    say("output", port="prompts", rows=len(prompts))
    return {"prompts": float(len(prompts))}


def leave_with_orchestrator():
    """Standard input ends when the orchestrator dies: then nobody waits for the result."""
    sys.stdin.read()
    os._exit(143)


def files():
    """What this worker is made of: while none of it changed, it is not asked again."""
    return sorted({m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)})


def main():
    if sys.argv[1:] == ["describe"]:
        print(json.dumps(CATALOG | {"files": files()}))
        return 0
    if len(sys.argv) != 3 or sys.argv[1] != "run":
        print("usage: worker.py describe | run TASK", file=sys.stderr)
        return 2
    threading.Thread(target=leave_with_orchestrator, daemon=True).start()
    version = "python " + sys.version.split()[0]
    say("hello", protocol=PROTOCOL, catalog="", worker="prompts", backend=version, device="cpu")
    try:
        with open(sys.argv[2], encoding="utf-8") as file:
            task = json.load(file)
        kinds = {kind["name"]: kind["version"] for kind in CATALOG["kinds"]}
        if task["protocol"] != PROTOCOL or kinds.get(task["kind"]) != task["version"]:
            raise Refusal(f"this worker does not know {task['kind']}@{task['version']}")
        say("done", summary=prompts_from(task))
    except (Refusal, OSError, ValueError) as error:
        say("failed", message=str(error), chain=[], help=None)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
