"""What the stages of a pipeline made, for notebooks and scripts.

    import preflow
    preflow.path("pipelines/tiny.yaml", "ppo")     # where it lies
    preflow.load("pipelines/tiny.yaml", "labels")  # a table, a model, or where it lies
"""

import json
import os
import pathlib
import subprocess
import sysconfig
import warnings

__all__ = ["PreflowError", "load", "outputs", "path"]


class PreflowError(Exception):
    """What `preflow` said, and its exit code as `code`."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


def outputs(pipeline, stage, *, set=(), profile=None):
    """What a stage made last: a list of dicts with `port`, `type`, `path`, `bytes`, and `rows` and
    `columns` of datasets. `stage` may be `stage.port`. Warns where it is stale.

    Raises PreflowError when the pipeline is wrong or the stage was never made.
    """
    own = pathlib.Path(sysconfig.get_path("scripts")) / "preflow"
    program = os.environ.get("PREFLOW") or (str(own) if own.exists() else "preflow")
    command = [program, "show", os.fspath(pipeline), stage, "-n", "0", "--json"]
    for value in set:
        command += ["--set", value]
    if profile:
        command += ["--profile", profile]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        raise PreflowError(ran.stderr.strip(), ran.returncode)
    made = json.loads(ran.stdout)
    if made["stale"]:
        warnings.warn(f"{made['stage']} is stale: {made['stale']}", stacklevel=3)
    return made["outputs"]


def path(pipeline, stage, **options):
    """Where the first output of a stage lies, or that of `stage.port`, as a pathlib.Path. Never
    write there: the store knows its files by their content."""
    return pathlib.Path(outputs(pipeline, stage, **options)[0]["path"])


def load(pipeline, stage, **options):
    """The first output of a stage, or that of `stage.port`: a dataset as a pyarrow.Table, a policy
    as a model of transformers; their path where that package is not installed, and of anything
    else."""
    output = outputs(pipeline, stage, **options)[0]
    place = pathlib.Path(output["path"])
    kind = output["type"]
    try:
        if kind.startswith("dataset/"):
            import pyarrow.parquet

            return pyarrow.parquet.read_table(place)
        if kind == "model/policy" and not (place / "adapter_config.json").exists():
            import transformers

            return transformers.AutoModelForCausalLM.from_pretrained(place)
    except ModuleNotFoundError as missing:
        if missing.name not in ("pyarrow", "transformers", "torch"):
            raise
    return place
