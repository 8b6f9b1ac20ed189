"""A JupyterLab of its own for a test: its settings, kernels and notebooks stand in one folder."""
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat.v4 as v4

TOKEN = "a-test"
SETTINGS = {"@jupyterlab/apputils-extension/notification": dict(fetchNews="false", checkForUpdates=False)}


def free_port() -> int:
    "A port that nobody listens on."
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(folder: Path) -> dict:
    "Jupyter's folders under one; live views allowed, as for somebody who sits before it."
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    kept = {key: value for key, value in os.environ.items() if key not in ("INFOPROMPT_STATIC", "IN_TEST")}
    return kept | own | dict(IPYTHONDIR=str(folder / "ipython"))


def write_notebook(path: Path, *cells: str):
    "A notebook of code cells."
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells], metadata=meta)
    path.write_text(json.dumps(notebook), encoding="utf-8")


@contextlib.contextmanager
def running(notebooks: Path,  # the folder that it opens
            folder: Path  # an empty one, for all that Jupyter keeps
            ):
    "The address of a JupyterLab on this machine."
    for name, settings in SETTINGS.items():
        file = folder / f"settings/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={notebooks}"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status?token={TOKEN}", server, folder / "log")
        yield address
    finally:
        server.terminate()
        try: server.wait(30)
        except subprocess.TimeoutExpired: server.kill(); server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path):
    "Wait until a server answers."
    while True:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url).close()
            return
        time.sleep(.1)
