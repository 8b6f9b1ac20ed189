"""The runs behind the lesson on evidence, one small file a question.

python benchmarks/evidence.py [forms critics more again] [--tasks sentiment ...]

Each question of `infoprompt.study.questions.QUESTIONS`: nano's five tasks, twenty seeds, 64 rows for 30 epochs where it
says nothing else. A question's file is benchmarks/results/evidence_QUESTION.parquet, with command, commit and versions
in its attributes; a task is added when it is done, and what is there is not run again. What another nano answered has
to be deleted before it is asked anew.
"""
import argparse
import os
from io import BytesIO
from pathlib import Path

import pandas as pd

from infoprompt.base.files import write_whole
from infoprompt.study.questions import NANO, QUESTIONS, gather
from made import made, use_threads

HERE = Path(__file__).resolve().parent


def keep(table: pd.DataFrame, file: Path):
    "Write a table whole."
    table.to_parquet(buffer := BytesIO(), compression="zstd", index=False)
    write_whole({file: buffer.getvalue()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--tasks", nargs="+", choices=NANO, default=NANO)
    options = parser.parse_args()
    if unknown := set(options.questions) - set(QUESTIONS): parser.error(f"unknown: {', '.join(unknown)}")
    os.chdir(HERE.parent)
    use_threads()
    for question in options.questions or QUESTIONS:
        file = HERE / f"results/evidence_{question}.parquet"
        stored = lambda: [pd.read_parquet(file)] if file.is_file() else []
        for task in options.tasks:
            if any(f"nano/{task}" in set(t["task"]) for t in stored()): continue
            about = made()
            table = gather(question, f"nano/{task}").assign(commit=about["commit"])
            whole = pd.concat([*stored(), table], ignore_index=True)
            whole.attrs = about
            keep(whole, file)


if __name__ == "__main__":
    main()
