"""45 runs as one population against 45 calls of `fit`, side by side in one process.

python benchmarks/population.py [--threads 2] [--epochs 30] [--repeats 3]

3 β x 3 γ x 5 seeds on nano/sentiment, 64 shots, the same validation work. The singles are sampled: nine of the 45, one
of each setting, timed between the populations and counted five times. Peak memory is that of a process of its own for
each size R, less that of one that trains nothing. Writes benchmarks/results/population.json.
"""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from made import made

FILE = Path(__file__).resolve().parent / "results/population.json"
SETTINGS = [dict(beta=b, gamma=g) for b in (0, .1, 1.) for g in (0, .05, .5)]


def seconds(encoder, data, runs: list[dict], epochs: int) -> float:
    "Time of one population, models built before."
    models = [InfoPromptModel(encoder, "nano/sentiment", init="vocab", **run) for run in runs]
    start = time.perf_counter()
    train_population(Population(models), data["train"], data["validation"], epochs, [1e-3] * len(runs), 8,
                     [(run["seed"], run["seed"]) for run in runs], progress=False)
    return time.perf_counter() - start


def highest() -> float:
    "Peak memory of this process in GB; of Linux, for `resource` reports what the parent had."
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def peak(size: int) -> float:
    "GB that a population of this size adds to a process, in two epochs of training."
    done = subprocess.run([sys.executable, __file__, "--peak", str(size)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", os.cpu_count()), ("epochs", 30), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peak", type=int, help="train so many runs for two epochs and print what they add in GB")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder, data = Encoder("nano"), load_data("nano/sentiment", shots=64, seed=0)
    grid = [s | dict(seed=seed) for s in SETTINGS for seed in range(10)]
    if options.peak:
        before = highest()
        seconds(encoder, data, grid[:options.peak], 2)
        return print(highest() - before)
    grid = [run for run in grid if run["seed"] < 5]
    seconds(encoder, data, grid[:2], 1)
    found = []
    for repeat in range(options.repeats):
        alone = sum(seconds(encoder, data, [s | dict(seed=repeat)], options.epochs) for s in SETTINGS)
        together = {size: seconds(encoder, data, grid[:size], options.epochs) for size in (9, 45)}
        found.append(dict(single=alone / 9, **{f"population of {n}": t / n for n, t in together.items()},
                          ratio=alone / 9 * 45 / together[45]))
        print({k: round(v, 3) for k, v in found[-1].items()}, flush=True)
    ratios = [f["ratio"] for f in found]
    result = dict(seconds_a_run={k: float(np.median([f[k] for f in found])) for k in found[0] if k != "ratio"},
                  ratio=dict(median=float(np.median(ratios)), low=min(ratios), high=max(ratios)),
                  peak_memory_gb={size: peak(size) for size in (1, 9, 45, 90)},
                  options={k: v for k, v in vars(options).items() if k != "peak"},
                  machine=dict(cores=os.cpu_count(), processor=platform.machine()), made=made())
    held = json.loads(FILE.read_text()) if FILE.is_file() else {}
    write_whole({FILE: json.dumps(held | {f"{options.threads} threads": result}, indent=1).encode()})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
