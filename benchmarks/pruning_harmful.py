"""What is gained where the tokens that truly harm are removed; and the score beside three random masks for each seed.

python benchmarks/pruning_harmful.py [--tasks sentiment relation] [--seeds 20] [--minutes M]

The prompts of benchmarks/pruning.py: nano, five tasks, 64 rows, twenty tokens, learning rate 0.01, ten epochs. A token
is harmful if blanking it makes the loss on the 64 validation rows clearly smaller: the whole 95 % interval lies below
zero. All harmful tokens of a prompt are removed at once, or, as controls, as many at random, or as many with the lowest
scores. Then every arm is trained again for ten epochs, the whole prompt too. Test rows choose nothing. Where a prompt
has no harmful token, these arms are the whole prompt. "importance" and three random masks remove 70 % of the numbers,
as there.

Resumable: parts wait in results/checkpoints_pruning_harmful; --minutes ends it before a part that would begin later
than that. Writes benchmarks/results/pruning_harmful.json when all tasks are whole.
"""
import argparse
import json
import time

import torch

from infoprompt.base.files import write_whole
from infoprompt.engine.masks import wear
from infoprompt.method.encoders import Encoder
from infoprompt.show.weights import TASKS, t_interval
from infoprompt.study.pruning import again, removal, shares
from made import made, use_threads
from pruning import ALONE, CONTROL, CUT, N, ROOT, columns, first, judged

SEEDS, STEP, DRAWS = 20, 5, range(3)


def harmful(gaps) -> list:
    "Tokens whose removal makes the loss clearly smaller, from (row, n_prompt) of validation rows."
    return [i for i, rows in enumerate(gaps.T.numpy()) if t_interval(rows)[2] < 0]


def arms(model, train, seed: int, found: list) -> dict:
    "arm -> model to train again."
    few, most = dict(tokens=len(found) / N, cut=CUT), dict(shares(CONTROL, N, cut=CUT), cut=CUT)
    models = {f"random {i}": model.prune(train, **most, by="random", seed=seed + 1000 * i) for i in DRAWS}
    models |= dict(importance=model.prune(train, **most), continued=model.prune(train, cut=CUT))
    if found:
        mask = torch.ones(N, CUT)
        mask[found] = 0
        wear(whole := model.prune(train, cut=CUT), mask)
        models |= dict(harmful=whole, chance=model.prune(train, **few, by="random", seed=seed),
                       score=model.prune(train, **few))
    return models


def measured(task: str, seeds, encoder) -> list[dict]:
    "Rows of one task and some seeds."
    splits, models = first(task, seeds, encoder)
    found = [harmful(gaps) for gaps in removal(models, splits["validation"], range(len(seeds)))]
    runs = [(i, arm, m) for i, (s, model) in enumerate(zip(seeds, models))
            for arm, m in arms(model, splits["train"][i], s, found[i]).items()]
    which, own, on = [i for i, *_ in runs], [m for *_, m in runs], dict(test=splits["test"])
    raw = judged(own, which, on)
    again(own, splits["train"], None, which=which, progress=False, accelerator=ALONE)
    rows = [dict(seed=seeds[i], task=task, arm=arm, removed=len(found[i]), **{f"raw_{k}": v for k, v in r.items()}, **x)
            for (i, arm, _), r, x in zip(runs, raw, judged(own, which, on))]
    none = [row for row in rows if row["arm"] == "continued" and not row["removed"]]
    return rows + [row | dict(arm=arm) for row in none for arm in ("harmful", "chance", "score")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all five")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}; in steps of {STEP}")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of the processor; begin no part later")
    options = parser.parse_args()
    use_threads()
    encoder, begun, rows, makers = Encoder("nano"), time.process_time(), [], {}
    for task in options.tasks:
        for at in range(0, options.seeds, STEP):
            file = ROOT / f"benchmarks/results/checkpoints_pruning_harmful/{task}-{at}.json"
            if not file.is_file():
                if time.process_time() - begun > 60 * options.minutes:
                    return print("no time is left for another part; the same command goes on from here")
                spent = time.process_time()
                part = measured(task, list(range(at, min(at + STEP, options.seeds))), encoder)
                write_whole({file: json.dumps(dict(made=made(), rows=part)).encode()})
                print(file.stem, f"{time.process_time() - spent:.0f} s of the processor", flush=True)
            part = json.loads(file.read_text())
            rows, makers = rows + part["rows"], makers | {task: part["made"]}
    write_whole({ROOT / "benchmarks/results/pruning_harmful.json": json.dumps(
        dict(made=made(), made_of=makers, rows=columns(rows)), separators=(",", ":")).encode()})


if __name__ == "__main__":
    main()
