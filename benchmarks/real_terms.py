"""Information terms on real text: MiniLM, SUBJ and SST-2, 64 rows, four or sixteen vectors, twenty seeds.

python benchmarks/real_terms.py [--vectors 4] [--tasks subj sst2] [--arms plain published ...]

MiniLM was pretrained to compare sentences. It has no masked-LM head, so that its state at [MASK] was never made to say
anything: a hard case. To be affordable, only rows of at most 12 words are used, five epochs in batches of 8, 64
validation rows of each seed, and the same 200 test rows for all. Each arm tries its rates on the first five seeds; the
one with the lowest validation cross-entropy (best epoch of the smoothed curve, mean over seeds) then gets all twenty.
Test rows choose nothing. `probe` is a logistic regression on the un-prompted states of the same rows. The arms that
begin with "made" have a prompt that is made from the input, as the released code has it: see benchmarks/ladder.py. They
are run on SUBJ alone. With 16 vectors, these and the probe, which has no prompt, are not run again.

Reads ../shared/data and writes benchmarks/results/real_terms.parquet, or real_terms_16.parquet for sixteen vectors,
five runs at a time; what is there is not run again.
"""
import argparse
import os
from functools import cache
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from infoprompt.base.files import write_whole
from infoprompt.core import load_data
from infoprompt.data.sources import read_splits
from infoprompt.data.tasks import get_task
from infoprompt.method.encoders import Encoder
from infoprompt.study.evidence import smoothed
from infoprompt.study.experiments import probe
from infoprompt.study.questions import noted
from infoprompt.study.sweeps import Alone, plan, run_part
from ladder import Released
from made import made, use_threads

HERE = Path(__file__).resolve().parent
SHOTS, EPOCHS, WORDS, TEST, SEEDS, FIRST = 64, 5, 12, 200, 20, 5
RATES = 3e-4, 1e-3, 3e-3, 1e-2, 3e-2
FAULTS = "clamp", "first", "mask"  # of the released code, as far as a task of single texts can have them
PLAIN, PUBLISHED = dict(betas=(0.,), gammas=(0.,)), dict(betas=(.1,), gammas=(.05,))
ARMS = {"plain": PLAIN, "published": PUBLISHED, "probe head": dict(PLAIN, head_init="probe"),
        "informed": dict(PLAIN, inits=("informed",)), "beta = 1": dict(betas=(1.,), gammas=(0.,)),
        "made, as released": dict(PUBLISHED, prompt="instance", rep_critic="released", faults=FAULTS),
        "made, without the bottleneck": dict(PUBLISHED, prompt="instance"),
        "made, without the terms": dict(PLAIN, prompt="instance")}


@cache
def short(task: str) -> DatasetDict:
    "A task's rows of few words."
    name, = get_task(task).columns
    whole = {s: pd.DataFrame(columns) for s, columns in read_splits(f"../shared/data/{task}").items()}
    return DatasetDict({s: Dataset.from_pandas(rows[rows[name].str.split().str.len() <= WORDS], preserve_index=False)
                        for s, rows in whole.items()})


@cache
def load(task: str, seed: int) -> DatasetDict:
    "The rows of a seed, and the test rows of all."
    data = load_data(task, SHOTS, seed, short(task))
    test = data["test"].shuffle(seed=0)
    return DatasetDict(data | dict(test=test.select(range(min(TEST, len(test))))))


def chosen(task: str, vectors: int) -> list[str]:
    "The arms that are run where none are named."
    free = [arm for arm in ARMS if not arm.startswith("made")]
    return free if vectors > 4 else ["probe", *(ARMS if task == "subj" else free)]


def piece(task: str, arm: str, lr: float, seeds, encoder: Encoder, vectors: int = 4) -> pd.DataFrame:
    "Some seeds of an arm at one rate."
    if arm == "probe":
        found = [probe(load(task, seed), get_task(task), encoder) for seed in seeds]
        return pd.DataFrame([dict(seed=seed, val_accuracy=own["validation"]["accuracy"],
                                  test_accuracy=own["test"]["accuracy"]) for seed, own in zip(seeds, found)])
    runs = plan(lrs=(lr,), seeds=seeds, n_prompts=(vectors,), **dict(inits=("vocab",)) | ARMS[arm])
    models, rows = run_part(runs, encoder, get_task(task), lambda seed: load(task, seed), Alone(torch.device("cpu")),
                            EPOCHS, 8, make=Released, progress=False)
    return pd.DataFrame([noted(m, r) for m, r in zip(models, rows)])


def best_rate(held: pd.DataFrame) -> float:
    "The rate that validation rows choose for an arm."
    first = held[held["seed"] < FIRST]
    return first["curve"].map(lambda c: smoothed(c).min()).groupby(first["lr"]).mean().idxmin()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["subj", "sst2"])
    parser.add_argument("--arms", nargs="+", choices=["probe", *ARMS], metavar="ARM")
    parser.add_argument("--vectors", type=int, choices=[4, 16], default=4, help="of the prompt")
    options = parser.parse_args()
    os.chdir(HERE.parent)
    use_threads()
    encoder, vectors = Encoder("minilm"), options.vectors
    file = HERE / "results" / ("real_terms.parquet" if vectors == 4 else f"real_terms_{vectors}.parquet")
    def add(task, arm, lr, seeds):
        table = pd.read_parquet(file) if file.is_file() else pd.DataFrame(dict(task=[], arm=[], lr=[], seed=[]))
        own = table[(table["task"] == task) & (table["arm"] == arm)]
        missing = [s for s in seeds if s not in set(own[own["lr"] == lr]["seed"])]
        if missing:
            about = made()
            more = piece(task, arm, lr, missing, encoder, vectors)
            more = more.assign(task=task, arm=arm, lr=lr, commit=about["commit"])
            own, table = pd.concat([own, more]), pd.concat([table, more], ignore_index=True)
            table.attrs = about
            table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
            write_whole({file: buffer.getvalue()})
        return own
    for task in options.tasks:
        for arm in tqdm(options.arms or chosen(task, vectors), desc=task):
            for lr in (0.,) if arm == "probe" else RATES: held = add(task, arm, lr, range(FIRST))
            lr = 0. if arm == "probe" else best_rate(held)
            for at in range(FIRST, SEEDS, FIRST): add(task, arm, lr, range(at, min(at + FIRST, SEEDS)))


if __name__ == "__main__":
    main()
