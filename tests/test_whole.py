"""Saved means complete: after a kill, a flipped bit or a full disk, a file is the old one, the new one or refused."""
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_cli import QUICK, SWEEP, call, refused

from conftest import ROOT
from infoprompt.base import files
from infoprompt.base.endings import Interrupted, Terminated, finite, heeding, uninterrupted
from infoprompt.base.files import launched, owned, read_whole, write_whole
from infoprompt.command import runs
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.engine import training
from infoprompt.study.sweeps import read_part, sweep
from small import NANO, bits, new, same

DATA = load_data("nano/sentiment", shots=20, seed=0)
FIT = dict(epochs=2, batch_size=10, lr=.01, progress=False)
SMALL = dict(encoder=NANO, shots=16, epochs=1, progress=False, betas=(0,), gammas=(0,), seeds=(0, 1), lrs=(1e-2,))


def said(done) -> list[str]:
    "Its lines on stderr, progress bars and warnings left out."
    lines = done.stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("infoprompt:") and "careful:" not in line]


def died(act) -> bool:
    "Run something in a child that may kill itself."
    child = os.fork()
    if child: return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try: act()
    finally: os._exit(0)


def kill_at(n, name):
    "Replace a function of os by one that kills the process when it is called for the n-th time."
    real, calls = getattr(os, name), []

    def counted(*args):
        calls.append(1)
        if len(calls) == n: os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    setattr(files.os, name, counted)


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_killed_save_leaves_the_old_model_or_the_new_one(name, tmp_path):
    old, other = new(), new(n_prompt=2, init="random", beta=.5)
    killed = []
    for n in range(1, 6):
        old.save_pretrained(tmp_path / "a")
        killed.append(died(lambda: (kill_at(n, name), other.save_pretrained(tmp_path / "a"))))
        with warnings.catch_warnings(action="ignore"):
            back = InfoPromptModel.from_pretrained(tmp_path / "a", encoder=NANO)
        kept = [m for m in (old, other) if m.settings == back.settings]
        assert len(kept) == 1 and same(bits(back), bits(kept[0]))
    assert killed == [True] * 3 + [False] * 2
    old.save_pretrained(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["README.md", "config.json", "prompt.safetensors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A prompt, a checkpoint and a sweep."
    folder = tmp_path_factory.mktemp("made")
    model = new()
    model.fit(DATA["train"], checkpoint=folder / "checkpoint", **FIT)
    model.save_pretrained(folder / "prompt")
    sweep(**SMALL, out=folder / "sweep")
    return folder


def prompt(folder):
    back = InfoPromptModel.from_pretrained(folder / "prompt", encoder=NANO)
    return back.describe(), bits(back)


def state(folder):
    facts, tensors = read_whole(folder / "checkpoint/state.safetensors")
    return facts, tensors


def part(folder):
    rows, best = read_part(folder / "sweep", 0, NANO)
    return [rows, best.describe()], bits(best)


def plan(folder): return read_whole(folder / "sweep/sweep.json")


@pytest.mark.parametrize("name, read", [
    ("prompt/prompt.safetensors", prompt), ("prompt/config.json", prompt), ("checkpoint/state.safetensors", state),
    ("sweep/part-0.json", part), ("sweep/part-0/prompt.safetensors", part), ("sweep/sweep.json", plan)])
def test_a_flipped_bit_is_refused_or_changes_nothing(name, read, made, tmp_path):
    (facts, tensors), data = read(made), (made / name).read_bytes()
    for place in "prompt", "checkpoint", "sweep": shutil.copytree(made / place, tmp_path / place)
    rng, refusals = random.Random(0), 0
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data) if rng.random() < .5 else min(3000, len(data)))] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(flipped)
        try:
            with warnings.catch_warnings(action="ignore"): found, parameters = read(tmp_path)
        except InputError as e:
            refusals += 1
            assert "\n" not in str(e) and str(tmp_path / name) in str(e), e
        else: assert found == facts and same(parameters, tensors)
    assert refusals > 50 or name.endswith("config.json")


def test_a_newer_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FORMAT", 2)
    new().save_pretrained(tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="saved by infoprompt .*, format 2; this one reads format 1: upgrade"):
        InfoPromptModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"beta": 7}', "[" * 100_000])
def test_config_json_is_only_a_copy(text, tmp_path):
    model = new(beta=.5)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.warns(UserWarning, match="only a copy"):
        back = InfoPromptModel.from_pretrained(tmp_path, encoder=NANO)
    assert back.settings == model.settings and same(bits(back), bits(model))
    (tmp_path / "config.json").unlink()
    assert InfoPromptModel.from_pretrained(tmp_path, encoder=NANO).settings == model.settings


def test_a_folder_of_trainer_says_how_to_save_it_right(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    for folder in tmp_path / "checkpoint-2", tmp_path:
        save_file(bits(new()), folder / "model.safetensors")
        with pytest.raises(InputError, match=r"Trainer.*model.save_pretrained\(folder\).*load_state_dict"):
            InfoPromptModel.from_pretrained(folder)


# --- one program a folder

def test_a_folder_in_use_is_refused(tmp_path):
    with owned(tmp_path, launched()):
        refused(call("train", *QUICK, "--out", tmp_path), "another program", "choose another folder")
        refused(call("train", *QUICK, "--resume", "--out", tmp_path), "another program")
        refused(call(*SWEEP, "--out", tmp_path), "another program")
        model = new()
        before = bits(model)
        with pytest.raises(InputError, match="another program"):
            model.fit(DATA["train"], checkpoint=tmp_path, **FIT)
        assert same(before, bits(model)) and [p.name for p in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_a_crash_leaves_no_lock_and_no_half_file(tmp_path):
    def crash():
        with owned(tmp_path / "run", launched()):
            kill_at(1, "replace")
            write_whole({tmp_path / "run/a": b"half"})
    assert died(crash) and len(list((tmp_path / "run").glob(".a.*.part"))) == 1
    with owned(tmp_path / "run", launched()):
        assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list((tmp_path / "run").iterdir())


def test_processes_of_one_launch_are_one_run(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu",
               "--main_process_port", "0", "-m", "infoprompt", "train", *QUICK, "--out", tmp_path / "run", "--json"]
    env = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    run = lambda: subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["out"] == str(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {*runs.WRITTEN}
    again = [line for line in run().stderr.splitlines() if line.startswith("infoprompt:")]
    assert len(again) == 1 and "holds another run" in again[0]


def test_the_program_is_a_module():
    for module in "infoprompt", "infoprompt.command.cli":
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


# --- signals

def test_a_signal_waits_for_the_end_of_a_block():
    done = []
    with pytest.raises(Terminated), heeding():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append(1)
        done.append(2)
    assert done == [1] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(ZeroDivisionError), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        1 / 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_a_step_and_its_note_loses_nothing(sign, tmp_path, monkeypatch):
    whole, model, note = new(), new(), training.History.note
    want = whole.fit(DATA["train"], DATA["validation"], **FIT)

    def interrupted(self, step, values, fine=None):
        if step == 3 and "loss" in values: signal.raise_signal(sign)
        note(self, step, values, fine)
    monkeypatch.setattr(training.History, "note", interrupted)
    with pytest.raises(Interrupted, match="step 3 of 4"):
        model.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, **FIT)
    monkeypatch.undo()
    assert model.history.query("quantity == 'loss'")["step"].tolist() == [1, 2, 3]
    again = new()
    found = again.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, resume=True, **FIT)
    pd.testing.assert_frame_equal(found, want, check_exact=True)
    assert same(bits(again), bits(whole))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert call("train", *QUICK, "--out", folder).exit_code == 0
    return folder


@pytest.mark.parametrize("where, count", [("start", 1), ("evaluate", 1), ("judge", 1), ("judge", 2), ("evaluate", 3),
                                          ("save", 1)])
@pytest.mark.parametrize("sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_anywhere_is_one_line_and_resumes(where, count, sign, code, trained, tmp_path, monkeypatch):
    from infoprompt.engine import population
    place, name = dict(start=(runs, "start"), evaluate=(InfoPromptModel, "evaluate"), judge=(population, "judge"),
                       save=(InfoPromptModel, "save_pretrained"))[where]
    real, calls = getattr(place, name), []

    def stopped(*args, **kw):
        calls.append(1)
        if len(calls) == count: signal.raise_signal(sign)
        return real(*args, **kw)
    monkeypatch.setattr(place, name, stopped)
    done = call("train", *QUICK, "--out", tmp_path / "run")
    lines = said(done)
    assert done.exit_code == code and len(lines) == 1 and "Traceback" not in done.stderr, done.output
    monkeypatch.undo()
    assert ("--resume" in lines[0]) == (tmp_path / "run/run.json").is_file()
    assert call("train", *QUICK, "--resume", "--out", tmp_path / "run").exit_code == 0
    found, want = ((f / "prompt.safetensors").read_bytes() for f in (tmp_path / "run", trained))
    assert found == want
    order = lambda f: pd.read_parquet(f / "history.parquet").sort_values(["quantity", "step"], ignore_index=True)
    pd.testing.assert_frame_equal(order(tmp_path / "run"), order(trained), check_exact=True)


def test_another_number_of_threads_is_said(tmp_path):
    threads = torch.get_num_threads()
    new().fit(DATA["train"], checkpoint=tmp_path, **FIT)
    try:
        torch.set_num_threads(threads + 1)
        with pytest.warns(UserWarning, match=f"threads {threads} there, {threads + 1} here.*last bits"):
            new().fit(DATA["train"], checkpoint=tmp_path, resume=True, **FIT)
    finally: torch.set_num_threads(threads)


# --- a full disk

def full_for(monkeypatch, name):
    "No room for files of one name."
    real = os.replace

    def replace(source, target):
        if target.name == name: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)
    monkeypatch.setattr(files.os, "replace", replace)


@pytest.mark.parametrize("name", ["convergence.html", "history.parquet", "state.safetensors"])
def test_what_fits_is_kept_and_the_message_names_the_rest(name, trained, tmp_path, monkeypatch):
    full_for(monkeypatch, name)
    done = call("train", *QUICK, "--out", tmp_path / "run")
    line, = said(done)
    assert done.exit_code == 2 and name in line and "free some space" in line and "--resume" in line
    assert name != "state.safetensors" or "stopped at step 2" in line
    assert {*runs.WRITTEN} - {p.name for p in (tmp_path / "run").iterdir()} <= {name, "checkpoint"}
    monkeypatch.undo()
    assert call("train", "--resume", "--out", tmp_path / "run").exit_code == 0
    assert (tmp_path / "run/prompt.safetensors").read_bytes() == (trained / "prompt.safetensors").read_bytes()


# --- runs that diverge

def strict(text): return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_diverged_part_is_recorded_and_the_sweep_goes_on(tmp_path):
    apart, together = (sweep(**SMALL | dict(lrs=(1e38, 1e-2)), budget=b, out=tmp_path / str(b)) for b in (1e-3, 2.))
    for table, best in apart, together:
        lost = table.query("lr > 1")
        assert (lost["diverged"] > 0).all()
        assert lost[["test_accuracy", "val_accuracy", "val_loss"]].isna().all(axis=None)
        kept = table.query("lr < 1")
        assert (kept["diverged"] == 0).all() and kept.notna().all(axis=None) and best.fitted["lr"] == 1e-2
    pd.testing.assert_frame_equal(apart[0], together[0], atol=1e-3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "2.0/results.parquet"), together[0])


def test_json_stays_json(tmp_path):
    done = call(*SWEEP, "--beta", "0", "--lr", "1e38,0.01", "--budget", ".001", "--out", tmp_path / "some", "--json")
    assert done.exit_code == 0 and {r["test_accuracy"] is None for r in strict(done.stdout)["rows"]} == {True, False}
    done = call(*SWEEP, "--beta", "0", "--lr", "1e38", "--out", tmp_path / "all", "--json")
    assert done.exit_code == 1 and all(r["diverged"] for r in strict(done.stdout)["rows"])
    assert "all runs diverged" in done.stderr
    done = call("train", *QUICK, "--lr", "1e38", "--out", tmp_path / "run", "--json")
    assert done.exit_code == 1 and "not finite at step 1" in strict(done.stdout)["stopped"]
    assert finite([float("nan"), dict(a=(1., float("inf")))]) == [None, dict(a=[1., None])]
