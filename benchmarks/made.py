"What made a file of results, what a file keeps of earlier runs, and the threads that a script may use."
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from infoprompt.method.encoders import Encoder

PACKAGES = "infoprompt", "torch", "transformers", "scikit-learn"
CHANGES = "status", "--porcelain", "-uno", "..", ":!results", ":!../infoprompt/assets"  # of anything but results


def processor() -> str:
    "What kind of processor this is; on another kind, sums may be rounded differently."
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {torch.backends.cpu.get_cpu_capability()}"


def made(*more: str) -> dict:
    "Command, commit, whether files but results had been changed since, versions, processor, threads, nano's weights."
    name = Path(sys.argv[0]).name
    git = lambda *words: subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True,
                                        text=True).stdout.strip()
    commit, changed = git("rev-parse", "--short", "HEAD"), bool(git(*CHANGES))
    versions = {p: version(p) for p in (*PACKAGES, *more)}
    return dict(command=f"python benchmarks/{name}", commit=commit, changed=changed, versions=versions,
                processor=processor(), threads=torch.get_num_threads(), nano=Encoder("nano").fingerprint["weights"])


def beside(file: Path, tasks: dict, makers: dict, order) -> dict:
    "What a file holds of earlier runs, with the tasks that are whole now, and what made each."
    old = json.loads(file.read_text()) if file.is_file() else dict(made_of={}, tasks={})
    tasks, makers = old["tasks"] | tasks, old["made_of"] | makers
    return old | {k: {t: own[t] for t in order if t in own} for k, own in dict(made_of=makers, tasks=tasks).items()}


def use_threads():
    "As many as OMP_NUM_THREADS says, else all."
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
