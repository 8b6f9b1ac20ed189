"""Everything that wants a GPU: RoBERTa on real tasks, how fast it trains, and the lessons' cells for a GPU.

python benchmarks/gpu.py [PIECE ...] [--encoders roberta-base roberta-large] [--data ../shared/data] [--budget 12]
python benchmarks/gpu.py --list

table/ENCODER/TASK/SHOTS   RTE, MRPC, CoLA and SST-2 with 64 and 256 rows: the published weights and plain prompt
                           tuning, five seeds of each as one population with K = 32, 1e-3 and 30 epochs
speed/ENCODER              runs per second of such a population against PEFT's prompt tuning, one run after another,
                           and the share of the card's own matrix speed that is reached
cells                      the notebooks' cells that are marked for a GPU, their outputs stored

An encoder is a hub id or a folder. Rows come from --data, a folder with one folder a task, else from the hub. --budget
is the memory in GB that a part of a population may take beside the encoder: 12 suits a card with 16. Results go to
benchmarks/results/gpu.jsonl; a finished piece is not run again, and an unfinished table goes on where it was.
--list shows how many minutes a table takes at most, on a card that sustains 15 TFLOP/s in bf16: a quarter of what a
T4 can do at its best. docs: nbs/reference/study/experiments.ipynb. Without a GPU it works too, but takes days.
"""
import argparse
import json
import time
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from infoprompt.core import InfoPromptModel, Task
from infoprompt.data.tasks import SINGLE
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, bytes_of_row, chunks, terms
from infoprompt.engine.training import State, adamw_step, one_step
from infoprompt.method.encoders import Encoder, resolve
from infoprompt.study.sweeps import Alone, sweep
from made import made

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks/results/gpu.jsonl"
TASKS, SHOTS, SEEDS, EPOCHS = ("rte", "mrpc", "cola", "sst2"), (64, 256), range(5), 30
ARMS = [(.1, .05), (0., 0.)]
BATCH, LENGTH, N_PROMPT, STEPS, MATRIX = 8, 128, 4, 20, 8192
WEIGHTS, SUSTAINED, JUDGED = {"roberta-base": 85e6, "roberta-large": 302e6}, 15e12, 2000  # of layers; FLOP/s; test rows
GPU = torch.cuda.is_available()
DEVICE, PRECISION = torch.device("cuda" if GPU else "cpu"), "bf16"
NOTEBOOKS = "nbs/02_model.ipynb", "nbs/reference/study/experiments.ipynb"


def pieces(encoders: list[str]) -> list[str]:
    "Names of all pieces, the quick ones first."
    tables = [f"table/{e}/{t}/{s}" for e, s, t in product(encoders, SHOTS, TASKS)]
    return [*(f"speed/{e}" for e in encoders), *tables, "cells"]


def minutes(piece: str) -> float:
    "How long a table takes at most: all rows are full, and a weight costs two operations a token, forward and back."
    _, encoder, _, shots = piece.split("/")
    runs = len(ARMS) * len(SEEDS)
    rows = runs * (EPOCHS * int(shots) * (2 + 1) + 2 * JUDGED)  # trained, then validated; tested before and after
    return rows * 2 * LENGTH * WEIGHTS[encoder] / SUSTAINED / 60


def table(encoder: str, task: str, shots: str, options) -> dict:
    "Each arm's seeds as one population; one row a run."
    data, rows = options.data and str(Path(options.data) / task), []
    name = f"{Path(encoder).name}_{task}_{shots}"
    for beta, gamma in ARMS:
        found, _ = sweep(task, encoder, int(shots), data, EPOCHS, BATCH, options.budget_folder / f"{name}_{beta:g}",
                         options.budget, mixed_precision=PRECISION, betas=(beta,), gammas=(gamma,), inits=("vocab",),
                         lrs=(1e-3,), seeds=SEEDS)
        rows += json.loads(found.to_json(orient="records"))
    return dict(rows=rows)


def timed(step, count: int) -> float:
    "Seconds of a step, the first ones left out."
    wait = torch.cuda.synchronize if GPU else lambda: None
    for _ in range(2): step()
    wait(); begun = time.perf_counter()
    for _ in range(count): step()
    wait()
    return (time.perf_counter() - begun) / count


def flops(step) -> int:
    "Floating-point operations of one step, matrix products alone."
    with FlopCounterMode(display=False) as counter: step()
    return counter.get_total_flops()


def matrix_peak() -> float:
    "Operations per second of this card in one large bf16 matrix product."
    a, b = (torch.randn(MATRIX, MATRIX, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * MATRIX**3 / timed(lambda: a @ b, STEPS)


def our_step(encoder: Encoder, runs: int):
    "A step of a population with both terms, as training takes it."
    words = [w for w, i in encoder.tokenizer.get_vocab().items() if w.strip("Ġ").isalpha()][:1000]
    rows = [dict(text=" ".join(words[i::7] * 3), label=i % 2) for i in range(4 * BATCH)]
    task = Task("speed", verbalizer=dict(bad="bad", good="good"), template=SINGLE)
    encoder.max_length = min(encoder.max_length, LENGTH)
    models = [InfoPromptModel(encoder, task, n_prompt=N_PROMPT, init="vocab", seed=s).to(DEVICE) for s in range(runs)]
    population = Population(models)
    feed = Feed(population, Rows(population, rows), BATCH, [(s, s) for s in range(runs)])
    state, rates = State.fresh(population.stack()), torch.full((runs,), 1e-3, device=DEVICE)

    def step():
        batch = feed(*divmod(state.step, len(feed)))
        one_step(state, partial(terms, population), batch, Alone(DEVICE, PRECISION), rates, .01, 1., 1, adamw_step)
    return step


def peft_step(encoder: str, vocabulary: int, length: int):
    "A step of PEFT's prompt tuning on batches of the same shape."
    import peft
    from transformers import AutoModelForSequenceClassification
    base = AutoModelForSequenceClassification.from_pretrained(resolve(encoder), num_labels=2)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=N_PROMPT, prompt_tuning_init="RANDOM")
    model = peft.get_peft_model(base, config).to(DEVICE).eval()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.randint(vocabulary // 2, vocabulary, (BATCH, length - N_PROMPT), device=DEVICE)
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.arange(BATCH, device=DEVICE) % 2)
    half = lambda: torch.autocast(DEVICE.type, torch.bfloat16) if PRECISION == "bf16" else nullcontext()

    def step():
        optimizer.zero_grad()
        with half(): loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    return step


def speed(name: str, options) -> dict:
    "One run of 240 steps: how many of them a second, in a population and with PEFT, and at what share of the peak."
    encoder, peak = Encoder(name), matrix_peak()
    row = bytes_of_row(encoder, min(encoder.max_length, LENGTH))
    runs = len(chunks(len(ARMS) * len(SEEDS), row, BATCH, options.budget)[0])
    ours = our_step(encoder, runs)
    work, seconds = flops(ours), timed(ours, STEPS)
    peft = peft_step(name, len(encoder.tokenizer), encoder.max_length)
    alone_work, alone = flops(peft), timed(peft, STEPS)
    steps = EPOCHS * SHOTS[0] // BATCH
    return dict(device=torch.cuda.get_device_name() if GPU else "cpu", runs_at_once=runs, length=encoder.max_length,
                runs_per_second=runs / seconds / steps, peft_runs_per_second=1 / alone / steps,
                times_as_fast=runs * alone / seconds, share_of_peak=work / seconds / peak,
                peft_share_of_peak=alone_work / alone / peak, tflops_of_peak=peak / 1e12,
                memory_gb=torch.cuda.max_memory_allocated() / 2**30 if GPU else None)


def cells(options) -> dict:
    "Run the cells for a GPU and store their outputs in the notebooks."
    from execnb.shell import CaptureShell
    done = {}
    for path in NOTEBOOKS:
        book = json.loads((ROOT / path).read_text(encoding="utf-8"))
        source, shell = lambda cell: "".join(cell["source"]), CaptureShell(path=(ROOT / path).parent)
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        for cell in code:
            if source(cell).startswith("#| hide") and "import" in source(cell): shell.run(source(cell))
        shell.run("from infoprompt.core import *\nfrom infoprompt.study.sweeps import *")
        for cell in (cell for cell in code if source(cell).startswith("#| gpu")):
            text = source(cell).replace('"roberta-large"', repr(options.encoders[-1]))
            if options.data:
                text = text.replace("shots=64", f"shots=64, data={str(Path(options.data).resolve() / 'rte')!r}")
            cell["outputs"] = shell.run(text)
            if shell.exc: raise RuntimeError(f"{path}: {shell.exc}")
            done[path] = done.get(path, 0) + 1
        (ROOT / path).write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return dict(cells=done)


def run(piece: str, options) -> dict:
    "What a piece gives."
    kind, _, rest = piece.partition("/")
    if kind == "cells": return cells(options)
    if kind == "speed": return speed(rest, options)
    return table(*rest.rsplit("/", 2), options)


def finished() -> dict:
    "Results by piece."
    lines = map(json.loads, FILE.read_text().splitlines()) if FILE.is_file() else ()
    return {line["piece"]: line for line in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help="default: all")
    parser.add_argument("--encoders", nargs="+", default=["roberta-base", "roberta-large"], help="hub ids or folders")
    parser.add_argument("--data", help="folder with one folder a task; default: the hub")
    parser.add_argument("--budget", type=float, default=12., help="GB that a part of a population may take")
    parser.add_argument("--list", action="store_true", help="show the pieces, their time, and which are done")
    options = parser.parse_args()
    names = pieces(options.encoders)
    if unknown := set(options.pieces) - set(names): parser.error(f"unknown: {', '.join(sorted(unknown))}; see --list")
    known = lambda n: n.startswith("table") and n.split("/")[1] in WEIGHTS
    long = lambda n: f"  (at most {minutes(n):.0f} minutes)" if known(n) else ""
    if options.list: return print(*(f"{'done' if n in finished() else '    '}  {n}{long(n)}" for n in names), sep="\n")
    options.budget_folder = ROOT / "benchmarks/results/checkpoints_gpu"
    for piece in options.pieces or names:
        if piece in finished(): continue
        print(piece, flush=True)
        begun = time.time()
        found = run(piece, options)
        line = dict(piece=piece, made=made("accelerate"), seconds=round(time.time() - begun), **found)
        with open(FILE, "a") as file: file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
