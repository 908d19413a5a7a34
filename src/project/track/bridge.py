"""Between preflow and a tracker: events of a run on standard input, one JSON object a line.

Called as `bridge.py TOOL WHERE`. One run of the tracker a run of preflow; figures are called
STAGE/NAME and keep the steps of their stage. Ends with the last line of its input; where no line
said that the run ended, it was killed. Whatever fails is one line on standard error.
"""

import sys

# Never what lies where the user stands.
sys.path[:] = [place for place in sys.path if place not in ("", ".")]

import base64
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE = 10
KILLED = {"exit": 137}


class MLflow:
    """By MLflow's REST interface, without its package."""

    def __init__(self, where, run):
        self.base = where.rstrip("/") + "/api/2.0/mlflow/"
        self.waiting = []
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run["name"]
        experiment = self.experiment(name)
        tags = {
            "mlflow.runName": run["run"],
            "mlflow.source.type": "PROJECT",
            "mlflow.source.name": run["pipeline"],
            "preflow.run": run["run"],
            "preflow.command": " ".join(run["command"]),
        }
        if run.get("commit"):
            tags["mlflow.source.git.commit"] = run["commit"]
        made = self.ask("runs/create", {
            "experiment_id": experiment,
            "run_name": run["run"],
            "start_time": int(time.time() * 1000),
            "tags": [{"key": key, "value": value[:5000]} for key, value in tags.items()],
        })
        self.run = made["run"]["info"]["run_id"]

    def experiment(self, name):
        try:
            return self.ask("experiments/create", {"name": name})["experiment_id"]
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
        query = "experiments/get-by-name?" + urllib.parse.urlencode({"experiment_name": name})
        return self.ask(query)["experiment"]["experiment_id"]

    def ask(self, path, body=None):
        request = urllib.request.Request(self.base + path)
        request.add_header("content-type", "application/json")
        token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
        if token:
            request.add_header("authorization", "Bearer " + token)
        elif user:
            pair = user + ":" + os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
            request.add_header("authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"{}")

    def params(self, params):
        pairs = [{"key": key[:250], "value": value[:6000]} for key, value in params.items()]
        for start in range(0, len(pairs), 100):
            self.ask("runs/log-batch", {"run_id": self.run, "params": pairs[start : start + 100]})

    def metrics(self, step, values):
        now = int(time.time() * 1000)
        for key, value in values.items():
            self.waiting.append({"key": key, "value": value, "timestamp": now, "step": step})
        if len(self.waiting) >= 500:
            self.flush()

    def flush(self):
        while self.waiting:
            part, self.waiting = self.waiting[:1000], self.waiting[1000:]
            self.ask("runs/log-batch", {"run_id": self.run, "metrics": part})

    def end(self, code):
        self.flush()
        states = {0: "FINISHED", 3: "FINISHED", 130: "KILLED", 137: "KILLED"}
        self.ask("runs/update", {
            "run_id": self.run,
            "status": states.get(code, "FAILED"),
            "end_time": int(time.time() * 1000),
        })


class Trackio:
    def __init__(self, where, run):
        import trackio

        self.tool, self.where, self.name = trackio, where, run["run"]
        self.started = False

    def start(self, params):
        if not self.started:
            self.tool.init(project=self.where, name=self.name, config=params)
            self.started = True

    def params(self, params):
        self.start(params)

    def metrics(self, step, values):
        self.start({})
        self.tool.log(values, step=step)

    def flush(self):
        pass

    def end(self, code):
        self.start({})
        self.tool.finish()


class Wandb:
    def __init__(self, where, run):
        os.environ.setdefault("WANDB_MODE", where)
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        project = os.environ.get("WANDB_PROJECT") or run["name"]
        self.run = wandb.init(project=project, name=run["run"], notes=" ".join(run["command"]))
        self.known = set()

    def params(self, params):
        self.run.config.update(params)

    def metrics(self, step, values):
        # Each stage counts its own steps.
        values = dict(values)
        for stage in {key.split("/")[0] for key in values}:
            if stage not in self.known:
                self.known.add(stage)
                self.run.define_metric(stage + "/step")
                self.run.define_metric(stage + "/*", step_metric=stage + "/step")
            values[stage + "/step"] = step
        self.run.log(values)

    def flush(self):
        pass

    def end(self, code):
        self.run.finish(exit_code=0 if code in (0, 3) else code)


TOOLS = {"mlflow": MLflow, "trackio": Trackio, "wandb": Wandb}


def flat(prefix, value):
    """`{"a": {"b": 1}}` as `{"prefix.a.b": "1"}`."""
    if isinstance(value, dict) and value:
        out = {}
        for key, inner in value.items():
            out.update(flat(prefix + "." + key, inner))
        return out
    return {prefix: value if isinstance(value, str) else json.dumps(value)}


def lines(into):
    for line in sys.stdin:
        into.put(line)
    into.put(None)


def main(tool, where):
    waiting = queue.Queue()
    threading.Thread(target=lines, args=(waiting,), daemon=True).start()
    tracker, params, ended = None, {}, None
    while True:
        try:
            line = waiting.get(timeout=1)
        except queue.Empty:
            if tracker:
                tracker.flush()
            continue
        if line is None:
            break
        event = json.loads(line)
        kind, stage = event["event"], event.get("stage")
        if kind == "run_started":
            params = event.pop("params", {})
            tracker = TOOLS[tool](where, event)
            all_params = {}
            for name, of in params.items():
                all_params.update(flat(name, of))
            tracker.params(all_params)
        elif kind in ("metric", "stage_done"):
            values = event["values"] if kind == "metric" else event["summary"]
            known = {stage + "/" + name: x for name, x in values.items() if x is not None}
            if known:
                tracker.metrics(event.get("step", event.get("last_step", 0)), known)
        elif kind == "run_ended":
            ended = event
    if tracker:
        tracker.end((ended or KILLED)["exit"])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text).get("message", text)
        except ValueError:
            pass
        sys.exit(f"the server answered {error.code}: {text[:300]}")
    except urllib.error.URLError as error:
        sys.exit(f"the server does not answer: {error.reason}")
    except ModuleNotFoundError as error:
        sys.exit(f"the package {error.name} is not installed for {sys.executable}")
    except Exception as error:
        text = str(error).splitlines()
        sys.exit(f"{type(error).__name__}: {text[0] if text else 'no reason'}")
