"""The runs behind the lesson on evidence, one small file a question.

python benchmarks/evidence.py [weights informed rates critics starts depth k single more real]
                              [--tasks sentiment ...]

Each question of `infoprompt.evidence.QUESTIONS` on nano's tasks (64 shots, 30 epochs, 10 seeds where it does not say
otherwise), and real: MiniLM on rows of ../shared/data. What is there is not run again: a task's rows lie in benchmarks/results/checkpoints_evidence/, a question's
file is benchmarks/results/evidence_QUESTION.parquet with command, commit and versions in its attributes.
"""
import argparse
import os
import subprocess
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch

from infoprompt.evidence import NANO, QUESTIONS, TASKS, gather
from infoprompt.files import write_whole

HERE = Path(__file__).resolve().parent


def made() -> dict:
    "Command, commit and versions."
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return dict(command="python benchmarks/evidence.py", commit=commit.stdout.strip(),
                versions={name: version(name) for name in ("infoprompt", "torch", "transformers")})


def keep(table: pd.DataFrame, file: Path):
    "Write a table whole."
    table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
    write_whole({file: buffer.getvalue()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=[], choices=[*QUESTIONS])
    parser.add_argument("--tasks", nargs="*", default=[*NANO, *TASKS["real"]], help="of those that a question is asked of")
    options = parser.parse_args()
    os.chdir(HERE.parent)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    for question in options.questions or QUESTIONS:
        parts = {t: HERE / f"results/checkpoints_evidence/{question}_{t}.parquet" for t in TASKS[question]}
        for task in options.tasks:
            if task not in parts or parts[task].is_file(): continue
            where = dict(encoder="minilm", data=f"../shared/data/{task}") if question == "real" else {}
            table = gather(question, task if where else f"nano/{task}", size=5 if where else 40, **where)
            table.attrs = made()
            keep(table, parts[task])
        whole = [pd.read_parquet(p) for p in parts.values() if p.is_file()]
        table = pd.concat([t.assign(commit=t.attrs["commit"]) for t in whole], ignore_index=True)
        table.attrs = whole[-1].attrs
        keep(table, HERE / f"results/evidence_{question}.parquet")


if __name__ == "__main__":
    main()
