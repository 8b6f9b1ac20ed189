"""Every file that is read, damaged in hundreds of ways: refused in one line, or read with the same answers."""
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from infoprompt.base.files import read_whole
from infoprompt.command.cli import train
from infoprompt.command.options import check_options
from infoprompt.command.runs import read_rows, read_run
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.data.tasks import as_rows, infer_task
from infoprompt.engine.training import load_state
from infoprompt.study.sweeps import claim, read_part, sweep
from small import NANO
from test_cli import call

MUTATIONS, SEED = 300, 12
TEXTS = ["the soup was good .", "anna did not like the slow film .", "the waiter was nice ."]


# --- damage

def spot(rng, data, most=12):
    "A short span of the data."
    start = int(rng.integers(max(1, len(data))))
    return start, min(len(data), start + int(rng.integers(1, most)))


def flipped(rng, data):
    "One to four bits the other way round."
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 5))): data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(rng, data): return data[:rng.integers(len(data))]


def cut_out(rng, data):
    a, b = spot(rng, data)
    return data[:a] + data[b:]


def doubled(rng, data):
    a, b = spot(rng, data, 60)
    return data[:b] + data[a:]


def blanked(rng, data):
    a, b = spot(rng, data, 60)
    return data[:a] + bytes([rng.choice([0, 32, 255])]) * (b - a) + data[b:]


def noise(rng, data):
    a, _ = spot(rng, data)
    return data[:a] + rng.bytes(int(rng.integers(1, 9))) + data[a:]


ODD = (b'"', b"'", b"\0", b"\r", b"\n", b"\r\n", b"\t", b",", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8",
       b"\xc2\x85", b"\\", b"{", b"}", b"[", b"]", b"<mask>", b"NaN", b"1e999", rb"\ud800", "😀".encode(), b"-", b"null")


def odd(rng, data):
    "A sign that formats give a meaning to."
    a, _ = spot(rng, data)
    return data[:a] + ODD[rng.integers(len(ODD))] + data[a:]


OTHER = (None, True, False, 0, -1, 3, 1.5, 2**70, 1e308, float("nan"), "", "x", "\ud800", "0", [], {}, [[]], [None],
         {"a": 1}, {"": []})


def nodes(value, path=()):
    "The places of a JSON value."
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for k, v in parts: yield from nodes(v, (*path, k))


def other_value(rng, value):
    "A JSON value with one part of another type, or gone."
    paths = [*nodes(value)]
    path, new = paths[rng.integers(len(paths))], OTHER[rng.integers(len(OTHER))]
    if not path: return new
    at = value
    for k in path[:-1]: at = at[k]
    if rng.integers(5) == 0: del at[path[-1]]
    else: at[path[-1]] = new
    return value


def other_json(rng, data):
    "Another type somewhere in JSON."
    return json.dumps(other_value(rng, json.loads(data))).encode()


def other_line(rng, data):
    "Another type somewhere in one line of JSON lines."
    lines = data.splitlines()
    i = int(rng.integers(len(lines)))
    lines[i] = other_json(rng, lines[i])
    return b"\n".join(lines)


def other_header(rng, data):
    "Another type somewhere in the header of a safetensors file."
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(other_value(rng, json.loads(data[8:8 + size]))).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size:]


BYTES = flipped, cut, cut_out, doubled, blanked, noise, odd
STRUCTURE = {".json": other_json, ".jsonl": other_line, ".safetensors": other_header}


def damaged(data: bytes, suffix: str):
    "Name and bytes of each damaged copy, none of them whole."
    ways = BYTES + (STRUCTURE[suffix],) * 3 if suffix in STRUCTURE else BYTES
    for i in range(MUTATIONS):
        rng = np.random.default_rng([SEED, i])
        way, found = ways[i % len(ways)], data
        while found == data: found = way(rng, data)
        yield f"{way.__name__} {i}", found


# --- what is read

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A folder with each kind of file."
    folder = tmp_path_factory.mktemp("fuzz")
    words = ["good", "bad", "nice", "awful", "fine", "dull"]
    table = pd.DataFrame(dict(text=[f'the "film", no {i}, was {words[i % 6]}' for i in range(24)],
                              label=[("yes", "no")[i % 2] for i in range(24)], year=[2000 + i % 5 for i in range(24)]))
    table.to_csv(folder / "rows.csv", index=False)
    table.assign(text=table["text"].str.replace('"', "")).to_csv(folder / "rows.tsv", index=False, sep="\t")
    table.to_json(folder / "rows.json", orient="records")
    table.to_json(folder / "rows.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "rows.parquet")
    assert call("train", "--epochs", "1", "--shots", "8", "--out", folder / "run").exit_code == 0
    sweep("nano/sentiment", NANO, 8, epochs=1, out=folder / "sweep", progress=False, betas=(0,), gammas=(0, .1),
          seeds=(0,))
    return folder


def answers(model):
    "What a model says."
    return model.predict_proba(TEXTS).to_numpy().tolist(), model.settings, model.task


def prompt_of(file): return answers(InfoPromptModel.from_pretrained(file.parent, encoder=NANO))


def options_of(file):
    options = read_run(file.parent)
    check_options(options, train)
    return options


def sweep_of(file): return claim(file.parent, SWEEPS[file])


def part_of(file):
    folder = file.parent if file.suffix == ".json" and file.name != "config.json" else file.parent.parent
    rows, best = read_part(folder, 0, NANO)
    return rows, answers(best)


def state_of(file):
    state = load_state(file, SETTINGS[file])
    groups = state.params, state.m, state.v, state.best, dict(key=state.best_key, ended=state.ended)
    return ([{k: x.tolist() for k, x in group.items()} for group in groups], state.step,
            state.history.frame(1).to_csv())


def table_of(file):
    "Rows as training and as prediction read them, or an InputError from both doors."
    task = infer_task(file)
    for rows in read_rows(task, None, file), load_data(task, data=file)["train"]:
        rows = as_rows(task, rows)
        assert len(rows) and all(r["text"].strip() and r["label"] in range(len(task.names)) for r in rows)


SETTINGS, SWEEPS = {}, {}
TABLES = [f"rows.{suffix}" for suffix in ("csv", "tsv", "json", "jsonl", "parquet")]
SAVED = {"run/run.json": options_of, "run/config.json": prompt_of, "run/prompt.safetensors": prompt_of,
         "run/checkpoint/state.safetensors": state_of, "sweep/sweep.json": sweep_of, "sweep/part-0.json": part_of,
         "sweep/part-0/config.json": part_of, "sweep/part-0/prompt.safetensors": part_of}


def tried(read, file):
    "What was read, or None where it was refused; raises what must not be."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try: found = read(file)
        except InputError as error:
            found = None
            assert "\n" not in str(error) and len(str(error)) < 1000, f"refused at length: {str(error)[:200]}"
    assert len(told) < 2, f"{len(told)} warnings"
    return found


def faults(file, read, same=None):
    "The damage that was read as something else or raised another error."
    whole, found = file.read_bytes(), []
    for name, data in damaged(whole, file.suffix):
        file.write_bytes(data)
        try:
            got = tried(read, file)
            if same is not None and got is not None and got != same: found.append(f"{name}: other answers")
        except Exception as error: found.append(f"{name}: {type(error).__name__}: {str(error)[:120]}")
    file.write_bytes(whole)
    return found


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table(name, files, capfd):
    found = faults(files / name, table_of)
    assert not found, f"{len(found)} of {MUTATIONS}: {found[:5]}"
    assert not "".join(capfd.readouterr()), "something was printed"


@pytest.mark.parametrize("name", SAVED)
def test_a_damaged_file_of_ours(name, files, capfd):
    file, read = files / name, SAVED[name]
    if read is sweep_of: SWEEPS[file] = read_whole(file)[0]
    if read is state_of:
        with pytest.raises(InputError): load_state(file, {})
        SETTINGS[file] = settings_of(file)
    same = read(file)
    found = faults(file, read, same)
    assert not found, f"{len(found)} of {MUTATIONS}: {found[:5]}"
    assert read(file) == same and not "".join(capfd.readouterr()), "something was printed"


def settings_of(checkpoint):
    "What a checkpoint was saved with."
    return read_whole(checkpoint)[0]["settings"]
