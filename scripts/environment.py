"""Environments of Python below target/, made once, for the scripts that try preflow beside other programs."""

import pathlib
import shutil
import subprocess
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent


def made(name, packages):
    """The folder of the environment, with the packages installed by pip."""
    folder = ROOT / "target" / name
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        (folder / "ready").touch()
    return folder
