"""Runs the tiny template with real trackers from PyPI: MLflow's server, also killed in the middle, Trackio and
W&B offline. Makes its own environment below target/. Called by `make trackers`; prints what each of them holds.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target/trackers"
PACKAGES = ["mlflow==3.*", "trackio", "wandb"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(folder):
    port = free_port()
    store = f"sqlite:///{folder}/mlflow.db"
    command = [ENVIRONMENT / "bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--default-artifact-root", f"{folder}/artifacts", "--workers", "1"]
    log = open(folder / "server.log", "w")
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(address + "/health", timeout=2)
            return server, address
        except OSError:
            time.sleep(0.2)
    sys.exit((folder / "server.log").read_text())


def stop(server):
    os.killpg(server.pid, 9)
    server.wait()


def preflow(folder, *words, track=None):
    environ = {**os.environ, "XDG_STATE_HOME": str(folder / ".state"), "NO_COLOR": "1", "HOME": str(folder)}
    # The Python that has the trackers is the first on PATH.
    environ["PATH"] = f"{ENVIRONMENT}/bin:{environ['PATH']}"
    environ["TRACKIO_DIR"] = str(folder / "trackio")
    if track is not None:
        (folder / "w/preflow.yaml").write_text("preflow-workspace: 1\ntrack: { %s }\n" % track)
    program = os.environ.get("PREFLOW", str(ROOT / "target/release/preflow"))
    place = folder / "w" if (folder / "w").exists() else folder
    return subprocess.Popen([program, *words], cwd=place, env=environ, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def done(process, code=0):
    out, err = process.communicate()
    if process.returncode != code:
        sys.exit(f"exit {process.returncode}\n{out}\n{err}")
    return out, err


def ask(address, path, body):
    request = urllib.request.Request(address + "/api/2.0/mlflow/" + path, json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=10).read())


def main():
    environment.made(ENVIRONMENT.name, PACKAGES)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trackers-"))
    try:
        done(preflow(folder, "init", "w"))
        server, address = serve(folder)
        tools = f"mlflow: '{address}', trackio: tiny, wandb: offline, tensorboard: events"
        _, err = done(preflow(folder, "run", track=tools))
        assert not err or "does not track" not in err, err
        runs = ask(address, "runs/search", {"experiment_ids": ["1"]})["runs"]
        assert len(runs) == 1, runs
        data, info = runs[0]["data"], runs[0]["info"]
        metrics = {metric["key"]: metric["value"] for metric in data["metrics"]}
        assert info["status"] == "FINISHED", info
        assert "ppo/objective/scores" in metrics and "eval/eval/gold_gain" in metrics, sorted(metrics)
        query = f"metrics/get-history?run_id={info['run_id']}&metric_key=base/train/loss"
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/{query}") as answer:
            history = json.loads(answer.read())["metrics"]
        assert len(history) > 5, history
        print(f"mlflow: {len(metrics)} metrics, {len(data['params'])} params, {len(history)} steps of base/train/loss")

        count = f"""
import os, sqlite3, glob
for path in glob.glob({str(folder / "trackio")!r} + "/**/*.db", recursive=True):
    rows = sqlite3.connect(path).execute("select count(*) from metrics").fetchone()
    print(os.path.basename(path), rows[0])
"""
        listed = subprocess.run([ENVIRONMENT / "bin/python", "-c", count], check=True, text=True, capture_output=True)
        assert "tiny" in listed.stdout, listed
        print("trackio:", listed.stdout.strip())
        offline = list((folder / "w/wandb").glob("offline-run-*/*.wandb"))
        assert offline and offline[0].stat().st_size > 1000, offline
        print("wandb:", offline[0].name, offline[0].stat().st_size, "bytes")
        files = list((folder / "w/events").glob("*/*/events*"))
        assert len(files) > 4, files
        print("tensorboard:", len(files), "files")

        # The server dies while stages run: one warning, and every stage is made.
        running = preflow(folder, "run", "--set", "seed=2", "--set", "kl_coef=0.4", track=f"mlflow: '{address}'")
        time.sleep(6)
        stop(server)
        out, err = done(running)
        assert err.count("mlflow does not track this run") == 1, err
        print("killed in the middle:", [line for line in err.splitlines() if "mlflow" in line][0])
    finally:
        try:
            stop(server)
        except (UnboundLocalError, ProcessLookupError):
            pass
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
