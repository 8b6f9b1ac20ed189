"""Pruned prompts as a start on another task of nano (XPrompt Transfer), against plain transfer of as many steps.

python benchmarks/pruning_transfer.py [--seeds 20] [--pairs 3]

64 rows, twenty tokens, no information terms, learning rate 0.01, twenty epochs on the source and twenty on the target,
always in two rounds of ten. A prompt is pruned, if at all, between the rounds: 70 % of its numbers go where it was
whole, and half of the rest where it came pruned. The pairs, chosen before any run: two tasks on pairs of sentences,
each way, and two tasks on single sentences. Resumable: parts wait in results/checkpoints_pruning_transfer. Writes
benchmarks/results/pruning_transfer.json.
"""
import argparse
import json
import time

from infoprompt.base.files import write_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.masks import wear
from infoprompt.method.encoders import Encoder
from infoprompt.study.pruning import again, shares
from made import made, use_threads
from pruning import ALONE, CUT, HELD, N, ROOT, SETTINGS, columns, first_stage, judged

PAIRS = ("paraphrase", "entailment"), ("entailment", "paraphrase"), ("acceptability", "sentiment")
SEEDS, STEP, RATIO, AGAIN = 20, 5, .7, dict(tokens=.29, pieces=.29)
def rounds(models, seeds, train, *cuts) -> list:
    "Train; then prune by each cut's shares, none for the whole prompt, and train again: a list of models a cut."
    first_stage(models, seeds, train)
    every = [[m.prune(d, **cut, cut=CUT) for m, d in zip(models, train)] for cut in cuts]
    again([m for own in every for m in own], train, None, which=[*range(len(seeds))] * len(cuts), progress=False,
          accelerator=ALONE)
    return every


def started(encoder, task: str, seeds, sources=None) -> list:
    "Models of a task that start from random words, or from sources and under their masks."
    models = [InfoPromptModel(encoder, f"nano/{task}", n_prompt=N, seed=s, **SETTINGS) for s in seeds]
    for model, source in zip(models, sources or ()):
        model.prompt.data.copy_(source.prompt.detach())
        wear(model, source.prompt_mask.detach())
    return models


def measured(source: str, target: str, seeds, encoder) -> list[dict]:
    "Rows of one pair and some seeds."
    data = {t: [load_data(f"nano/{t}", 64, s) for s in seeds] for t in (source, target)}
    train, which, rows = {t: [d["train"] for d in own] for t, own in data.items()}, list(range(len(seeds))), []
    splits = dict(validation=[d["validation"] for d in data[target]],
                  test=[d["test"].select(range(HELD)) for d in data[target]])
    most = shares(RATIO, N, cut=CUT)
    whole, pruned = rounds(started(encoder, source, seeds), seeds, train[source], {}, most)
    starts = {None: ("plain", "pruned", most), "whole": ("transfer", "target", most),
              "pruned": ("source", "both", AGAIN)}
    for start, (*arms, cut) in starts.items():
        models = started(encoder, target, seeds, dict(whole=whole, pruned=pruned).get(start))
        for arm, own in zip(arms, rounds(models, seeds, train[target], {}, cut)):
            for s, m, x in zip(seeds, own, judged(own, which, splits)):
                numbers = int(m.prompt_mask.sum()) * encoder.d_in // CUT
                rows.append(dict(seed=s, source=source, target=target, arm=arm, numbers=numbers, **x))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}; in steps of {STEP}")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help=f"the first of the pairs; default: {len(PAIRS)}")
    options = parser.parse_args()
    seeds = range(options.seeds)
    use_threads()
    encoder, state, rows = Encoder("nano"), ROOT / "benchmarks/results/checkpoints_pruning_transfer", []
    for source, target in PAIRS[:options.pairs]:
        for at in range(0, len(seeds), STEP):
            if not (file := state / f"{source}-{target}-{at}.json").is_file():
                begun, found = time.process_time(), measured(source, target, list(seeds[at:at + STEP]), encoder)
                write_whole({file: json.dumps(found).encode()})
                print(file.stem, f"{time.process_time() - begun:.0f} s of the processor", flush=True)
            rows += json.loads(file.read_text())
    write_whole({ROOT / "benchmarks/results/pruning_transfer.json": json.dumps(
        dict(made=made(), rows=columns(rows)), separators=(",", ":")).encode()})


if __name__ == "__main__":
    main()
