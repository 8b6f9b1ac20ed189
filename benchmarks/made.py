"What made a file of results, and the threads that a script may use."
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = "infoprompt", "torch", "transformers", "scikit-learn"


def made(*more: str) -> dict:
    "Command, commit and versions, of some more packages too."
    name = Path(sys.argv[0]).name
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
                            text=True).stdout.strip()
    versions = {p: version(p) for p in (*PACKAGES, *more)}
    return dict(command=f"python benchmarks/{name}", commit=commit, versions=versions)


def use_threads():
    "As many as OMP_NUM_THREADS says, else all."
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
