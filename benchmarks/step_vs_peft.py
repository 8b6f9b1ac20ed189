"""One training step of ours, both information losses on, against one of PEFT's prompt tuning: MiniLM, CPU, interleaved.

    python benchmarks/step_vs_peft.py            # a table, and benchmarks/results/step_vs_peft.json

Same encoder, same 8 rows, same 64 positions with as many prompt vectors among them, both with a cross-entropy over two
classes and AdamW. Ours adds L_rep and L_head with K = 32 and is `training.one_step`, the step that `fit` takes: batch
from the cache of un-prompted states, noise drawn, loss, backward, clipping, AdamW, history. PEFT's is its
`PromptTuningConfig` with the classifier head that it trains along, in training mode (dropout on) and in `eval()`.
The steps alternate within one process, so that whatever else the machine does falls on all of them alike; one thread
unless asked for more, because on a busy machine threads wait for each other. That reading only some rows of the last
layer changes no output is shown by tests/test_encoders.py.
"""
import argparse
import gc
import json
import os
import platform
import random
import sys
import time
from functools import partial
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pandas as pd
import peft
import torch
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from infoprompt.core import InfoPromptModel, Task
from infoprompt.data.tasks import SINGLE
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, terms
from infoprompt.engine.training import State, adamw_step, one_step
from infoprompt.method.encoders import Encoder, resolve
from made import made

RESULTS = Path(__file__).parent/"results"/"step_vs_peft.json"
TASK = Task("benchmark", verbalizer=dict(bad="bad", good="good"), template=SINGLE)


def rows_of(encoder, n: int, tokens: int) -> list:
    "Texts of one-token words, long enough to fill every position."
    words = [w for w, i in encoder.tokenizer.get_vocab().items() if w.isalpha() and len(w) > 3]
    pick = random.Random(0).choices(sorted(words), k=n * tokens)
    return [dict(text=" ".join(pick[i * tokens:(i + 1) * tokens]), label=i % 2) for i in range(n)]


def our_step(encoder, batch_size: int, length: int, n_prompt: int, beta: float, gamma: float, k: int):
    "Our step as a function without arguments, and the shape of its batch."
    model = InfoPromptModel(encoder, TASK, n_prompt=n_prompt, beta=beta, gamma=gamma, k=k, init="vocab")
    model.encoder.max_length = length
    alone = Population([model])
    feed = Feed(alone, Rows(alone, rows_of(encoder, batch_size * 4, length)), batch_size, [(0, 0)])
    accelerator, state = Accelerator(cpu=True), State.fresh({n: p.detach()[None] for n, p in model.trained().items()})
    rates = torch.full((1,), 1e-3)

    def step():
        batch = feed(*divmod(state.step, len(feed)))
        one_step(state, partial(terms, alone), batch, accelerator, rates, .01, 1., 1, adamw_step)
    return step, feed(0, 0)["input_ids"].shape[1:]


def peft_step(batch_size: int, length: int, n_prompt: int, training: bool):
    "PEFT's step as a function without arguments, and the shape of what its encoder reads."
    torch.manual_seed(0)
    level = logging.get_verbosity(); logging.set_verbosity_error()
    base = AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=2)
    logging.set_verbosity(level)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=n_prompt, prompt_tuning_init="RANDOM")
    model = peft.get_peft_model(base, config).train(training)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (batch_size, length - n_prompt), generator=g)
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.arange(batch_size) % 2)

    def step():
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return step, (batch_size, length)


def measure(steps: dict, rounds: int, warm: int) -> pd.DataFrame:
    "Milliseconds of each step in each round, by the wall's clock and of processor time; each round has its own order."
    notes, shuffle = [], random.Random(1)
    gc.collect(); gc.disable()
    for i in range(-warm, rounds):
        names = list(steps)
        shuffle.shuffle(names)
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            steps[name]()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if i >= 0: notes.append(dict(round=i, step=name, wall=wall * 1e3, cpu=cpu * 1e3))
    gc.enable()
    return pd.DataFrame(notes).pivot(index="round", columns="step", values=["wall", "cpu"])


def summary(times: pd.DataFrame, against: str) -> pd.DataFrame:
    "Medians, spread, and the median of the ratios within a round."
    ratio = times.div(times[against], axis=0)
    return pd.DataFrame(dict(median_ms=times.median(), q25_ms=times.quantile(.25), q75_ms=times.quantile(.75),
                             best_ms=times.min(), ratio=ratio.median(),
                             ratio_q25=ratio.quantile(.25), ratio_q75=ratio.quantile(.75),
                             ratio_of_medians=times.median() / times[against].median()))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(batch_size=8, length=64, n_prompt=4, k=32, rounds=20, warm=2, repeats=5, threads=1).items():
        p.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    p.add_argument("--out", type=Path, default=RESULTS)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    logging.disable_progress_bar()
    encoder, whole, reference = Encoder("minilm"), Encoder("minilm"), "PEFT, eval()"
    whole.read_whole()
    shape = dict(batch_size=a.batch_size, length=a.length, n_prompt=a.n_prompt)
    both = dict(shape, beta=.1, gamma=.05, k=a.k)
    built = {"ours, both losses": our_step(encoder, **both),
             "ours, both losses, last layer in full": our_step(whole, **both),
             "ours, plain prompt tuning": our_step(encoder, **shape, beta=0, gamma=0, k=a.k),
             reference: peft_step(**shape, training=False), "PEFT, dropout on": peft_step(**shape, training=True)}
    shapes = {name: tuple(s) for name, (_, s) in built.items()}
    assert set(shapes.values()) == {(a.batch_size, a.length)}, shapes
    steps = {name: step for name, (step, _) in built.items()}
    parts = []
    for i in range(a.repeats):
        times = measure(steps, a.rounds, a.warm)
        parts.append(summary(times["wall"], reference).assign(ratio_cpu=summary(times["cpu"], reference)["ratio"]))
        print(f"repetition {i + 1} of {a.repeats}: " + ", ".join(f"{n} {r:.3f}" for n, r in parts[-1]["ratio"].items()),
              flush=True)
    table = pd.concat(parts).groupby(level=0).median().loc[list(steps)]
    each = {n: [round(float(t.loc[n, "ratio"]), 3) for t in parts] for n in steps}
    table["ratio_min"], table["ratio_max"] = [min(each[n]) for n in steps], [max(each[n]) for n in steps]
    print(f"\nMiniLM, CPU, {a.threads} threads, batch {a.batch_size} x {a.length} tokens, {a.n_prompt} of them prompt "
          f"vectors, K = {a.k}; {a.repeats} repetitions of {a.rounds} rounds; ratios to {reference}, within a round;\n"
          "ratio_cpu by processor time, which other jobs on the machine touch less")
    print(table[["median_ms", "q25_ms", "q75_ms", "ratio", "ratio_min", "ratio_max", "ratio_cpu"]].round(3).to_string())
    note = dict(settings={k: v for k, v in vars(a).items() if k != "out"}, reference=reference,
                python=platform.python_version(), cores=os.cpu_count(),
                made=made("peft", "accelerate"),
                ratios_of_repetitions=each, table=json.loads(table.round(4).to_json(orient="index")))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(note, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
