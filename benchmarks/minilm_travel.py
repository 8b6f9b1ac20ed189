"""Prompts that travel between eight real sets, on MiniLM: 64 rows a task, texts of few words.

python benchmarks/minilm_travel.py [--blocks 1]        (five seeds a block)

MiniLM has no masked-LM head, so its states say nothing about label words, and a head of label words cannot be fixed.
Here (ours) the head of a target is a logistic regression on the un-prompted states of the target's 64 rows, with its
penalty chosen on held-out parts of these rows. It is made before any prompt is trained, and stays. So, unlike on nano,
the head has seen the target's rows; only the prompt comes from elsewhere, and the score without any prompt is the line
to beat. Texts have at most 16 words, pairs 36; CB keeps the last 30 words of each premise. Four vectors, four epochs in
batches of 8, and the usual start of random words; 32 validation rows choose the epoch. The rate is 0.01, which
validation rows of SUBJ chose for heads at a probe in real_terms.py. Test rows choose nothing: at most 64, the same for
all seeds. Scores are the mean recall over classes: a majority answer gets 1 / classes in every set.

On each target every prompt of the same seed answers without training. On targets whose own prompts are above the
majority line, training then starts at the source that `labels` likes best, and at the one whose mean vector is most
like that of the target's prompt of the block's next seed.

Reads ../shared/data, and writes infoprompt/assets/minilm_matrix.parquet (zero-shot scores and indicators) and
minilm_runs.parquet (own prompts, and runs from other starts). What is done waits in
benchmarks/results/checkpoints_minilm_travel/ and is not done again.
"""
import argparse
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy

from infoprompt.base.checks import InputWarning
from infoprompt.base.files import packed, parquet, read_whole, write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.data.sources import read_splits
from infoprompt.data.tasks import Task, as_rows, get_task
from infoprompt.data.templates import encode
from infoprompt.engine.population import Population, train_population
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.method.starts import PENALTIES, decoder, evenly
from infoprompt.show.weights import t_interval
from infoprompt.study.experiments import frozen_states
from infoprompt.study.sweeps import Alone
from infoprompt.study.transfer import KINDS, answers_to, similarity, told
from made import made, use_threads

ROOT = Path(__file__).resolve().parent.parent
SHOTS, HELD, EPOCHS, LR, LENGTH, TEST, BLOCK, BLOCKS = 64, 32, 4, .01, 4, 64, 5, 1
STARTS = "labels", "cos_mean"
CB = Task("cb", ("premise", "hypothesis"), verbalizer=dict(entailment="yes", contradiction="no", neutral="maybe"))
WIC = Task("wic", ("sentence1", "sentence2"), verbalizer=dict(different="no", same="yes"))
TASKS = {t.name: t for t in (*map(get_task, ("sst2", "subj", "cola", "mrpc", "rte", "semeval")), CB, WIC)}
FOLDERS = dict(semeval="semeval2010_task8")
MOST = dict(mrpc=36, rte=36, cb=60)  # words; 16 in the other sets


@cache
def short(name: str) -> DatasetDict:
    "A task's rows of few words; WiC's first sentence begins with the word, and CB's premise is cut."
    found, columns = {}, list(TASKS[name].columns)
    for split, rows in read_splits(f"../shared/data/{FOLDERS.get(name, name)}").items():
        rows = pd.DataFrame(rows)
        if name == "cb": rows["premise"] = rows["premise"].str.split().str[-30:].str.join(" ")
        words = sum(rows[c].str.split().str.len() for c in columns)
        if name == "wic": rows["sentence1"] = rows["word"] + " : " + rows["sentence1"]
        found[split] = Dataset.from_pandas(rows[words <= MOST.get(name, 16)], preserve_index=False)
    return DatasetDict(found)


@cache
def rows(name: str, seed: int) -> dict:
    "The rows of a seed, and the test rows of all."
    data = load_data(TASKS[name], SHOTS, seed, short(name), uneven=True)
    test = data["test"].shuffle(seed=0)
    held = evenly(as_rows(TASKS[name], data["validation"]))[:HELD]
    return data | dict(validation=held, test=test.select(range(min(TEST, len(test)))))


def bare(name: str, data, encoder: Encoder):
    "States (row, d) at [MASK] without a prompt, and labels (row,)."
    task, own = TASKS[name], evenly(as_rows(TASKS[name], data))
    states = frozen_states(encode(own, task.template.replace("[P]", ""), encoder, 0), encoder)
    return torch.cat(states), torch.tensor([row["label"] for row in own])


@cache
def head(name: str, seed: int, encoder: Encoder, folds: int = 8):
    "The target's head (class, d): a regression on un-prompted states of its training rows."
    states, labels = bare(name, rows(name, seed)["train"], encoder)
    blank, turn = torch.zeros(len(labels), len(TASKS[name].names)), torch.arange(len(labels)) * folds // len(labels)
    def missed(penalty, out):
        fitted = decoder(states[~out], blank[~out], labels[~out], penalty)
        return cross_entropy(states[out] @ fitted.T, labels[out], reduction="sum").item()
    best = min(PENALTIES, key=lambda p: sum(missed(p, turn == fold) for fold in range(folds)))
    return decoder(states, blank, labels, best)


def recall(said, labels):
    "Mean recall over the classes that are there, for answers (..., row)."
    return torch.stack([(said[..., labels == c] == c).float().mean(-1) for c in labels.unique()]).mean(0)


def scored(prompts, name: str, seed: int, encoder: Encoder):
    "Test scores (prompt,) of prompts (prompt, 4, d) with a seed's head."
    _, states, labels = answers_to(prompts, TASKS[name], rows(name, seed)["test"], encoder)
    return recall((states @ head(name, seed, encoder).T).argmax(-1), labels)


def trained(name: str, seeds: list, encoder: Encoder, starts=None) -> dict:
    "prompt (run, 4, d), curve (run, epoch: cross-entropy on validation) and score (run,), of plain training."
    models = []
    for i, seed in enumerate(seeds):
        models.append(InfoPromptModel(encoder, TASKS[name], n_prompt=LENGTH, beta=0, gamma=0, head="fixed", seed=seed,
                                      init="vocab" if starts is None else "zero"))
        models[-1].head.data.copy_(head(name, seed, encoder))
        if starts is not None: models[-1].prompt.data.copy_(starts[i])
    data = [rows(name, s) for s in seeds]
    train_population(Population(models), [d["train"] for d in data], [d["validation"] for d in data], EPOCHS,
                     [LR] * len(models), 8, [(s, s) for s in seeds], which=[*range(len(seeds))], progress=False,
                     accelerator=Alone(torch.device("cpu")))
    curve = lambda m: m.history.query("quantity == 'val_loss'").sort_values("step")["value"].to_numpy()
    prompts = torch.stack([m.prompt.detach() for m in models])
    return dict(prompt=prompts, curve=torch.tensor(np.stack([curve(m) for m in models])),
                score=torch.cat([scored(p[None], name, s, encoder) for p, s in zip(prompts, seeds)]))


def on_target(target: str, prompts: dict, seeds: list, encoder: Encoder) -> dict:
    "score and labels (seed, source), then the score of a prompt of random words and of no prompt (seed,)."
    found = dict(score=[], labels=[], untrained=[], unprompted=[])
    for i, seed in enumerate(seeds):
        whole = torch.stack([*(p[i] for p in prompts.values()), start_prompt("vocab", LENGTH, encoder, seed=seed)])
        *score, blank = scored(whole, target, seed, encoder)
        states, labels = bare(target, rows(target, seed)["test"], encoder)
        for key, value in dict(score=torch.stack(score), untrained=blank,
                               labels=told(whole[:-1], TASKS[target], rows(target, seed)["train"], encoder),
                               unprompted=recall((states @ head(target, seed, encoder).T).argmax(-1), labels)).items():
            found[key].append(value)
    return {k: torch.stack(v) for k, v in found.items()}


def alike(prompts: dict, i: int, encoder: Encoder) -> pd.DataFrame:
    "One row a source and target, one column a kind: sources of a seed against targets' prompts of the block's next."
    both = {t: p[i] for t, p in prompts.items()} | {f"target {t}": p[(i + 1) % len(p)] for t, p in prompts.items()}
    found = similarity(both, [k for k in KINDS if k != "labels"], encoder)
    found = found[~found["source"].str.startswith("target ") & found["target"].str.startswith("target ")]
    wide = found.assign(target=found["target"].str.removeprefix("target "))
    return wide.pivot(index=["source", "target"], columns="kind", values="value").reset_index()


def matrix(prompts: dict, found: dict, seeds: list, encoder: Encoder) -> pd.DataFrame:
    "One row a seed, source and target."
    tasks, lines = list(prompts), []
    for target, one in found.items():
        for i, seed in enumerate(seeds):
            lines += [dict(seed=seed, target=target, source=k, score=one[k][i].item())
                      for k in ("untrained", "unprompted")]
            lines.append(dict(seed=seed, target=target, source="majority",
                              score=1 / len({*rows(target, seed)["test"]["label"]})))
            lines += [dict(seed=seed, target=target, source=s, score=one["score"][i, j].item(),
                           labels=one["labels"][i, j].item()) for j, s in enumerate(tasks)]
    own = pd.concat([alike(prompts, i, encoder).assign(seed=s) for i, s in enumerate(seeds)])
    return pd.DataFrame(lines).merge(own, "left", ["seed", "source", "target"]).round(4)


def worth(table: pd.DataFrame, tasks: list) -> list:
    "The targets whose own prompts are above the majority line: the interval over seeds does not touch it."
    def above(task):
        own, line = (table[(table["target"] == task) & (table["source"] == s)]["score"] for s in (task, "majority"))
        return t_interval(own.to_numpy() - line.to_numpy())[1] > 0
    return [t for t in tasks if above(t)]


def chosen(table: pd.DataFrame, target: str, seeds: list, kind: str) -> list:
    "The source that a kind likes best, for each seed."
    part = table[(table["target"] == target) & (table["source"] != target) & table[kind].notna()]
    return [part[part["seed"] == s].set_index("source")[kind].idxmax() for s in seeds]


def runs(found: dict, **more) -> pd.DataFrame:
    "One row a run."
    return pd.DataFrame(dict(score=found["score"].round(decimals=4).tolist(),
                             curve=[np.round(c.numpy().astype("float32"), 4) for c in found["curve"]], **more))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of five seeds")
    options = parser.parse_args()
    os.chdir(ROOT)
    use_threads()
    warnings.simplefilter("ignore", InputWarning)
    waiting, encoder, tasks = ROOT / "benchmarks/results/checkpoints_minilm_travel", Encoder("minilm"), list(TASKS)
    waiting.mkdir(parents=True, exist_ok=True)

    def stored(name: str, make, *more) -> dict:
        file = waiting / f"{name}.safetensors"
        if not file.is_file(): write_whole({file: packed(dict(made=made()), make(*more))})
        return read_whole(file)[1]

    def write(name: str, tables: list):
        table = pd.concat(tables, ignore_index=True)
        table.attrs = made() | dict(shots=SHOTS, epochs=EPOCHS, lr=LR, test=TEST)
        write_whole({ROOT / f"infoprompt/assets/minilm_{name}.parquet": parquet(table)})

    matrices, tables = [], []
    for block in range(options.blocks):
        seeds = list(range(block * BLOCK, (block + 1) * BLOCK))
        own = {t: stored(f"own_{t}_{block}", trained, t, seeds, encoder) for t in tasks}
        prompts = {t: one["prompt"] for t, one in own.items()}
        found = {t: stored(f"target_{t}_{block}", on_target, t, prompts, seeds, encoder) for t in tasks}
        matrices.append(matrix(prompts, found, seeds, encoder))
        write("matrix", matrices)
        tables += [runs(own[t], start="usual", source="", target=t, seed=seeds) for t in tasks]
        for kind in STARTS:
            for t in worth(matrices[-1], tasks):
                names = chosen(matrices[-1], t, seeds, kind)
                starts = torch.stack([prompts[s][i] for i, s in enumerate(names)])
                one = stored(f"{kind}_{t}_{block}", trained, t, seeds, encoder, starts)
                tables.append(runs(one, start=kind, source=names, target=t, seed=seeds))
            write("runs", tables)


if __name__ == "__main__":
    main()
