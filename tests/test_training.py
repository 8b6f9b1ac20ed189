"""The loop: its optimizer is PyTorch's, a run in a population is a run alone, and a stop of any kind loses nothing."""
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from conftest import ROOT
from infoprompt.base import files
from infoprompt.core import InfoPromptModel, InputError, load_data
from infoprompt.engine import training
from infoprompt.engine.feeds import Feed, Rows
from infoprompt.engine.population import Population, terms, train_population
from infoprompt.engine.training import (Diverged, History, Interrupted, State, adamw_step, clip, keep_best, load_state,
                                        save_state, schedule, train)
from small import NANO, bits, close, new, same

DATA = load_data("nano/sentiment", shots=20, seed=0)
QUICK = dict(epochs=3, batch_size=6, lr=.01, progress=False)  # 4 steps an epoch, 12 in all


# --- the optimizer and the schedule

RATES = torch.tensor([1e-3, 1e-2, .3])


def stacked(seed=0):
    g = torch.Generator().manual_seed(seed)
    return dict(a=torch.randn(3, 4, 5, generator=g), b=torch.randn(3, 6, generator=g))


@pytest.mark.parametrize("decay", [0, .01, .3])
def test_stacked_adamw_is_pytorchs(decay):
    params, g = stacked(), torch.Generator().manual_seed(1)
    theirs = [{k: x[r].clone().requires_grad_() for k, x in params.items()} for r in range(3)]
    optimizers = [torch.optim.AdamW(t.values(), lr=float(lr), weight_decay=decay) for t, lr in zip(theirs, RATES)]
    m, v = ({k: torch.zeros_like(x) for k, x in params.items()} for _ in range(2))
    for step in range(1, 241):
        factor = schedule(step - 1, 240)
        grads = {k: torch.randn(x.shape, generator=g) * 10 ** (step % 5 - 3) for k, x in params.items()}
        params, m, v = adamw_step(params, grads, m, v, RATES * factor, step, decay)
        for r, (run, optimizer) in enumerate(zip(theirs, optimizers)):
            for k, x in run.items():
                x.grad = grads[k][r]
            optimizer.param_groups[0]["lr"] = float(RATES[r]) * factor
            optimizer.step()
    for k, x in params.items():
        torch.testing.assert_close(x, torch.stack([run[k].detach() for run in theirs]), atol=1e-6, rtol=2e-6)


def test_adamw_changes_nothing_in_place():
    params, grads, m, v = (stacked(i) for i in range(4))
    before = [{k: x.clone() for k, x in d.items()} for d in (params, grads, m, v)]
    adamw_step(params, grads, m, {k: x.abs() for k, x in v.items()}, RATES, 1)
    assert all(same(a, b) for a, b in zip(before, (params, grads, m, v)))


def test_clipping_goes_by_run():
    grads = {k: x * torch.tensor([.01, 1., 100.]).view(3, *[1] * (x.dim() - 1)) for k, x in stacked().items()}
    theirs = [{k: torch.nn.Parameter(torch.zeros_like(x[r])) for k, x in grads.items()} for r in range(3)]
    norms = []
    for r, run in enumerate(theirs):
        for k, p in run.items():
            p.grad = grads[k][r].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(run.values(), 1.))
    torch.testing.assert_close(clip(grads, 1.), torch.stack(norms))
    assert norms[0] < 1 < norms[1]
    for k, x in grads.items():
        torch.testing.assert_close(x, torch.stack([run[k].grad for run in theirs]))


def test_the_schedule_rises_and_falls():
    factors = [schedule(i, 100) for i in range(100)]
    assert factors[:6] == pytest.approx([i / 6 for i in range(1, 7)]) and factors[6] == 1
    assert factors[99] == pytest.approx(1 / 94)
    assert all(a > b for a, b in zip(factors[6:], factors[7:])) and schedule(0, 1) > 0


# --- a small problem with a run axis

class Toy:
    "Regression on random rows: one batch a step, a function of its number alone."
    def __init__(self, rows=10, steps=5):
        self.rows, self.steps = rows, steps
        self.truth = torch.randn(4, generator=torch.Generator().manual_seed(9))

    def __len__(self): return self.steps

    def __call__(self, epoch, i, runs=3):
        g = torch.Generator().manual_seed(100 * epoch + i)
        x = torch.randn(1, self.rows, 4, generator=g).expand(runs, -1, -1)
        return dict(x=x, y=x @ self.truth)


def toy_terms(params, batch):
    loss = (torch.einsum("rbd,rd->rb", batch["x"], params["w"]) + params["b"][:, None] - batch["y"]) ** 2
    return dict(loss=loss, size=loss.detach() * 0 + params["w"].detach().norm(dim=1)[:, None])


def toy_start(runs=3):
    g = torch.Generator().manual_seed(3)
    return dict(w=torch.randn(3, 4, generator=g)[:runs].clone(), b=torch.zeros(runs))


def toy(start=None, feed=None, lr=RATES, epochs=4, **kw):
    return train(toy_terms, start or toy_start(), feed or Toy(), Accelerator(), epochs, lr, progress=False, **kw)


def test_a_run_in_a_population_is_a_run_alone():
    class Alone(Toy):
        def __call__(self, epoch, i): return super().__call__(epoch, i, 1)
    together = toy()
    for r in range(3):
        alone = toy({k: x[r:r + 1] for k, x in toy_start().items()}, Alone(), RATES[r:r + 1])
        for k in together.params:
            torch.testing.assert_close(together.params[k][r], alone.params[k][0], atol=1e-6, rtol=1e-5)
    off = (together.params["w"] - Toy().truth).abs()
    assert off[2].max() < .3 < off[0].max()


@pytest.mark.parametrize("pieces", [2, 3, 10, 50])
def test_pieces_change_nothing(pieces):
    whole, cut = toy(), toy(pieces=pieces)
    assert close(whole.params, cut.params, 1e-6)
    frames = [s.history.frame(5) for s in (whole, cut)]
    pd.testing.assert_frame_equal(*frames, atol=1e-5, rtol=1e-5)


def test_pieces_hold_only_their_rows():
    seen = []

    def terms(params, batch):
        seen.append(batch["x"].shape[1])
        return toy_terms(params, batch)
    train(terms, toy_start(), Toy(steps=1), Accelerator(), 1, pieces=4, progress=False)
    assert seen == [3, 3, 2, 2]


def test_history_is_tidy():
    frame = toy().history.frame(5)
    assert set(frame["quantity"]) == {"loss", "size", "grad_norm"}
    assert list(frame) == ["run", "step", "epoch", "quantity", "value"]
    assert len(frame) == 3 * 20 * 3 and frame["epoch"].max() == 4
    assert not frame.duplicated(["run", "step", "quantity"]).any()
    assert History().frame(5).empty


def test_the_best_epoch_is_kept_by_run_and_ties_go_to_the_lower_loss():
    state = State.fresh(dict(w=torch.zeros(3, 1)))
    notes = [([.5, .9, .5], [1., 1., 1.]), ([.7, .8, .5], [9., .1, .5]), ([.7, .9, .5], [8., 1., .6]),
             ([.6, .9, .4], [0., 2., 0.])]
    for i, (score, loss) in enumerate(notes, 1):
        state.params = dict(w=torch.full((3, 1), float(i)))
        keep_best(state, dict(score=torch.tensor(score), val_loss=torch.tensor(loss)))
    assert state.best["w"][:, 0].tolist() == [3, 1, 2]
    torch.testing.assert_close(state.best_key, torch.tensor([[.7, -8], [.9, -1], [.5, -.5]]))


# --- checkpoints

def full(state, tmp_path):
    file = tmp_path / "state.safetensors"
    save_state(state, file, dict(lr=1, names=("a",)))
    return file


def test_a_checkpoint_gives_everything_back(tmp_path):
    state = toy(evaluate=lambda p: dict(score=p["w"].norm(dim=1), val_loss=p["b"]))
    back = load_state(full(state, tmp_path), dict(lr=1, names=["a"]))
    assert all(same(getattr(state, g), getattr(back, g)) for g in ("params", "m", "v", "best"))
    assert back.step == 20 and torch.equal(back.best_key, state.best_key)
    pd.testing.assert_frame_equal(back.history.frame(5), state.history.frame(5), check_exact=True)


def test_a_checkpoint_of_another_training_says_what_differs(tmp_path):
    file = full(toy(), tmp_path)
    with pytest.raises(InputError, match="lr: 1 there, 2 here.*same settings or another folder"):
        load_state(file, dict(lr=2, names=["a"]))
    with pytest.raises(InputError, match="new: None there, 3 here"):
        load_state(file, dict(lr=1, names=["a"], new=3))


@pytest.mark.parametrize("share", [0, .01, .5, .99])
def test_a_truncated_checkpoint(share, tmp_path):
    file = full(toy(), tmp_path)
    file.write_bytes(file.read_bytes()[:int(file.stat().st_size * share)])
    with pytest.raises(InputError, match="cut off"):
        load_state(file, dict(lr=1, names=["a"]))


def test_a_checkpoint_that_is_something_else(tmp_path):
    torch.save(dict(step=1), tmp_path / "pickle")
    with pytest.raises(InputError, match="pickles are never read"):
        load_state(tmp_path / "pickle", {})
    save_file(dict(w=torch.zeros(1)), tmp_path / "foreign")
    with pytest.raises(InputError, match="no checksum"):
        load_state(tmp_path / "foreign", dict(lr=1))


class Killed(BaseException):
    "Stands for a SIGKILL: nothing in the package may catch it."


class Dies:
    "A feed that ends the process, so to speak, when a step is asked for."
    def __init__(self, feed, at): self.feed, self.left = feed, at

    def __len__(self): return len(self.feed)

    def __call__(self, epoch, i):
        if not self.left: raise Killed
        self.left -= 1
        return self.feed(epoch, i)


@pytest.mark.parametrize("every", [None, 1, 3, 7])
@pytest.mark.parametrize("at", [3, 5, 11, 19])
def test_a_killed_population_resumes_bit_for_bit(at, every, tmp_path):
    judge = lambda p: dict(score=p["w"].norm(dim=1).round(), val_loss=p["b"])
    kw = dict(checkpoint=tmp_path / "s", checkpoint_every=every, evaluate=judge, settings=dict(a=1))
    whole = toy(evaluate=judge)
    with pytest.raises(Killed):
        toy(feed=Dies(Toy(), at), **kw)
    assert (tmp_path / "s").is_file() == (at >= (every or 5))
    again = toy(resume=True, **kw)
    for g in ("params", "m", "v", "best"):
        assert same(getattr(whole, g), getattr(again, g))
    pd.testing.assert_frame_equal(whole.history.frame(5), again.history.frame(5), check_exact=True)


@pytest.mark.parametrize("after", [1, 2, 5])
def test_ctrl_c_while_judging_loses_no_score(after, tmp_path):
    "The first judgement is before the first step, the last (number 5) after the last one."
    calls = []

    def judge(params):
        calls.append(1)
        if len(calls) == after: raise KeyboardInterrupt
        return dict(score=params["w"].norm(dim=1), val_loss=params["b"])
    calm = lambda p: dict(score=p["w"].norm(dim=1), val_loss=p["b"])
    kw = dict(checkpoint=tmp_path / "s", settings=dict(a=1))
    with pytest.raises(Interrupted):
        toy(evaluate=judge, **kw)
    whole, again = toy(evaluate=calm), toy(evaluate=calm, resume=True, **kw)
    assert same(whole.params, again.params) and same(whole.best, again.best)
    order = lambda s: s.history.frame(5).sort_values(["quantity", "step", "run"], ignore_index=True)
    pd.testing.assert_frame_equal(order(whole), order(again), check_exact=True)


# --- InfoPromptModel.fit

KINDS = [dict(), dict(rep_negatives="reference", k=4), dict(prompt="instance"),
         dict(rep_critic="released", head_critic="bilinear")]


# in epoch 1 · in epoch 2, saved at the end of 1 · in epoch 3
@pytest.mark.parametrize("at, every", [(2, 1), (6, 4), (9, 3)])
@pytest.mark.parametrize("kw", KINDS, ids=str)
def test_a_killed_fit_resumes_bit_for_bit(kw, at, every, tmp_path, monkeypatch):
    whole = new(**kw)
    history = whole.fit(DATA["train"], DATA["validation"], **QUICK)
    call, count = Feed.__call__, []

    def dying(self, epoch, i):
        count.append(1)
        if len(count) == at + 1: raise Killed
        return call(self, epoch, i)
    monkeypatch.setattr(Feed, "__call__", dying)
    with pytest.raises(Killed):
        new(**kw).fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, checkpoint_every=every, **QUICK)
    torch.manual_seed(123)  # nothing may depend on the state of the process
    again = new(**kw)
    resumed = again.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, checkpoint_every=every, resume=True,
                        **QUICK)
    assert len(count) < 12 + at + 1, "it began anew"
    assert same(bits(whole), bits(again))
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from infoprompt.core import InfoPromptModel, load_data
data = load_data("nano/sentiment", shots=20, seed=0)
model = InfoPromptModel("nano", "nano/sentiment", init="vocab")
model.fit(data["train"], data["validation"], epochs=4000, batch_size=6, lr=.01, progress=False, checkpoint=sys.argv[1],
          checkpoint_every=3, resume=True)
"""


def test_a_real_sigkill(tmp_path, monkeypatch):
    "A process killed for good between two files; its steps equal those of a run that never stopped."
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path], cwd=ROOT,
                               env=os.environ | dict(OMP_NUM_THREADS="1"))
    file, threads = tmp_path / "state.safetensors", torch.get_num_threads()
    while not file.is_file() and process.poll() is None:
        time.sleep(.05)
    time.sleep(.4)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps = files.read_whole(file)[0]["step"]
    assert steps >= 3 and steps % 3 == 0
    torch.set_num_threads(1)
    kw = dict(epochs=4000, batch_size=6, lr=.01, progress=False)
    call = Feed.__call__

    # a schedule of 4,000 epochs, of which we see a few more steps than the killed process did
    def until(self, epoch, i):
        if 4 * epoch + i == steps + 5: raise KeyboardInterrupt
        return call(self, epoch, i)
    monkeypatch.setattr(Feed, "__call__", until)
    whole, again = new(), new()
    for model, more in ((whole, {}), (again, dict(checkpoint=tmp_path, checkpoint_every=10**6, resume=True))):
        with pytest.raises(Interrupted):
            model.fit(DATA["train"], DATA["validation"], **kw, **more)
    torch.set_num_threads(threads)
    assert same(bits(whole), bits(again)) and not same(bits(whole), bits(new()))


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh model", "the same model"])
def test_ctrl_c_keeps_what_was_trained_and_goes_on(fresh, tmp_path, monkeypatch):
    whole = new()
    whole.fit(DATA["train"], DATA["validation"], **QUICK)
    model, call = new(), Feed.__call__
    stopping = lambda self, e, i: call(self, e, i) if (e, i) < (1, 2) else raising(KeyboardInterrupt)
    monkeypatch.setattr(Feed, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt, match="step 6 of 12"):
        model.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, **QUICK)
    assert not same(bits(model), bits(new())) and model.fitted["steps"] == 6
    assert model.history.query("quantity == 'loss'")["step"].tolist() == [1, 2, 3, 4, 5, 6]
    monkeypatch.undo()
    again = new() if fresh else model
    again.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, resume=True, **QUICK)
    assert same(bits(whole), bits(again))


def raising(error):
    raise error


def test_a_finished_fit_resumed_is_the_same(tmp_path):
    one, two = new(), new()
    one.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, **QUICK)
    two.fit(DATA["train"], DATA["validation"], checkpoint=tmp_path, resume=True, **QUICK)
    assert same(bits(one), bits(two))


def test_a_folder_that_holds_another_run(tmp_path):
    new().fit(DATA["train"], checkpoint=tmp_path, **QUICK)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(InputError, match="resume=True.*another folder"):
        new().fit(DATA["train"], checkpoint=tmp_path, **QUICK)
    for change in (dict(lr=.1), dict(seed=5), dict(order_seed=3), dict(epochs=9), dict(batch_size=4)):
        with pytest.raises(InputError, match=next(iter(change))):
            new().fit(DATA["train"], checkpoint=tmp_path, resume=True, **QUICK | change)
    for model, data in ((new(beta=.2), DATA["train"]), (new(seed=1), DATA["train"]), (new(), DATA["validation"])):
        with pytest.raises(InputError, match="comes from another run"):
            model.fit(data, checkpoint=tmp_path, resume=True, **QUICK)
    assert (tmp_path / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("term", ["l_rep", "l_head", "ce"])
def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(term, tmp_path, monkeypatch):
    losses, calls = InfoPromptModel.losses, []

    def sick(self, params, batch, out, weights):
        calls.append({k: p.detach().clone() for k, p in params.items()})
        parts = losses(self, params, batch, out, weights)
        if len(calls) < 6: return parts
        return parts | {term: parts[term] * torch.nan, "loss": parts["loss"] + parts[term] * torch.nan}
    monkeypatch.setattr(InfoPromptModel, "losses", sick)
    model = new()
    with pytest.raises(Diverged, match="step 6:.*weights are those of step 5.*lower lr") as e:
        model.fit(DATA["train"], checkpoint=tmp_path, **QUICK)
    assert e.value.state.step == 5 and {k: p[0] for k, p in e.value.state.params.items()}.keys() == bits(model).keys()
    assert same(bits(model), {k: p[0] for k, p in calls[5].items()})
    assert not same(bits(model), bits(new())) and all(p.isfinite().all() for p in bits(model).values())
    assert model.history["value"].map(pd.notna).all() and isinstance(e.value, ArithmeticError)


@pytest.mark.parametrize("lr", [1e18, 1e38])
def test_a_rate_far_too_high_leaves_finite_weights(lr):
    model = new(init="unit")
    with pytest.raises(Diverged):
        model.fit(DATA["train"], **QUICK | dict(lr=lr))
    assert all(p.isfinite().all() for p in bits(model).values())


@pytest.mark.parametrize("bad", [dict(lr=float("inf")), dict(lr=float("nan")), dict(lr=-1), dict(epochs=0),
                                 dict(batch_size=0), dict(accumulate=0)])
def test_fit_refuses_numbers_that_cannot_work(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        new().fit(DATA["train"], **QUICK | bad)


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="could not write.*untouched.*another folder"):
        files.write_whole({tmp_path / "a": b"new", tmp_path / "a" / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(where, tmp_path, monkeypatch):
    fit = lambda model, **kw: model.fit(DATA["train"], checkpoint=tmp_path, **QUICK | kw)
    fit(new())
    before = (tmp_path / "state.safetensors").read_bytes()
    full_disk(monkeypatch, where)
    model = new()
    (tmp_path / "other").mkdir()
    with pytest.raises(OSError, match="No space left.*untouched.*free some space"):
        training.save_state(State.fresh(toy_start()), tmp_path / "state.safetensors", {})
    with pytest.raises(OSError, match="free some space"):
        model.fit(DATA["train"], checkpoint=tmp_path / "other", **QUICK)
    assert not same(bits(model), bits(new())), "what was trained until then is lost"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["state.safetensors"]
    assert (tmp_path / "state.safetensors").read_bytes() == before


def full_disk(monkeypatch, where, after=0):
    "Let writing or renaming fail as on a full disk, from some call on."
    real, count = dict(write=os.fsync, replace=os.replace)[where], []

    def fail(*args):
        count.append(1)
        if len(count) > after: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)
    monkeypatch.setattr(files.os, "fsync" if where == "write" else "replace", fail)


@pytest.mark.parametrize("where, after", [("write", 0), ("write", 2), ("replace", 0)])
def test_a_full_disk_leaves_the_old_prompt(where, after, tmp_path, monkeypatch):
    new().save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = new(init="zero", n_prompt=2)
    full_disk(monkeypatch, where, after)
    with pytest.raises(OSError, match="No space left.*untouched"):
        model.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        new().save_pretrained(disk / "prompt")
        before = (disk / "prompt/prompt.safetensors").read_bytes()
        (disk / "filler").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        with pytest.raises(OSError, match="No space left.*untouched"):
            new(init="zero").save_pretrained(disk / "prompt")
        assert (disk / "prompt/prompt.safetensors").read_bytes() == before
        assert InfoPromptModel.from_pretrained(disk / "prompt", encoder=NANO).settings["init"] == "vocab"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("kw", [dict(), dict(prompt="instance", rep_negatives="reference", k=4)], ids=str)
def test_accumulation_gives_the_same_gradient_and_the_same_model(kw):
    model = new(**kw)
    params = {k: p[None] for k, p in bits(model).items()}
    alone = Population([model])
    batch = Feed(alone, Rows(alone, DATA["train"]), 6, [(0, 0)])(0, 0)
    step = lambda p, b: terms(alone, p, b)
    (one, means), (two, parts) = (training.gradients(step, params, batch, Accelerator(), n) for n in (1, 4))
    assert close(one, two, 1e-6) and close(means, parts, 1e-6) and max(g.abs().max() for g in one.values()) > 1e-3
    whole, cut = new(**kw), new(**kw)
    for m, pieces in ((whole, 1), (cut, 4)):
        m.fit(DATA["train"], **QUICK | dict(lr=1e-3), accumulate=pieces)
    # Adam divides by the size of the gradient, so that where it is almost 0 the last digits of a sum are seen.
    assert close(bits(whole), bits(cut), 1e-4) and not close(bits(whole), bits(new(**kw)), 2e-3)


MIXED = [dict(), dict(beta=0), dict(gamma=0, n_prompt=1), dict(beta=0, gamma=0, init="mask"), dict(k=3, beta=1.),
         dict(prompt="instance"), dict(head_critic="bilinear", head_negatives="vocab"), dict(rep_critic="released"),
         dict(rep_negatives="reference", k=4, n_prompt=7)]


def test_every_run_of_a_population_is_the_run_alone():
    rates, seeds = [.003 / (1 + r) for r in range(len(MIXED))], [(r, r + 1) for r in range(len(MIXED))]
    go = lambda models, rates, seeds: train_population(
        Population(models), DATA["train"], DATA["validation"], 12, rates, 6, seeds, progress=False)
    together = [new(seed=r, **kw) for r, kw in enumerate(MIXED)]
    go(together, rates, seeds)
    for r, kw in enumerate(MIXED):
        alone = new(seed=r, **kw)
        go([alone], rates[r:r + 1], seeds[r:r + 1])
        # other shapes of the same sums round otherwise, and Adam magnifies it where a gradient is almost 0
        assert close(bits(alone), bits(together[r]), 1e-4) and not close(bits(alone), bits(new(seed=r, **kw)), 1e-3)
        pd.testing.assert_frame_equal(alone.history, together[r].history, atol=5e-3, rtol=5e-3)
        assert together[r].fitted == alone.fitted


def test_after_240_steps_a_run_among_like_ones_is_the_run_alone_bit_for_bit():
    rows, grid = load_data("nano/sentiment", shots=64, seed=0), [(b, g) for b in (.05, .1, .2) for g in (.02, .05)]
    make = lambda: [new(beta=b, gamma=g, seed=r) for r, (b, g) in enumerate(grid)]
    def go(models, seeds):
        train_population(Population(models), rows["train"], None, 30, [1e-3] * len(models), 8, seeds, progress=False)
        return models
    together, (alone,) = go(make(), [(0, r) for r in range(6)]), go(make()[4:5], [(0, 4)])
    assert alone.fitted["steps"] == 240
    assert same(bits(alone), bits(together[4])) and not close(bits(alone), bits(make()[4]), 1e-2)
    asked = alone.collate_fn(alone.rows(rows["test"].select(range(50))))
    with torch.no_grad(): logits = [m(**asked).logits for m in (alone, together[4])]
    assert torch.equal(*logits)


def test_weights_fade_rise_or_stay_by_run():
    kinds = dict(constant=lambda t: 1., fading=lambda t: 1 - t, rising=lambda t: t)
    models = [new(weighting=w, beta=.3, gamma=.2) for w in kinds]
    train_population(Population(models), DATA["train"], None, 3, [1e-3] * 3, 6, [(0, 0)] * 3, progress=False)
    for model, factor in zip(models, kinds.values()):
        notes = model.history.pivot_table(index="step", columns="quantity", values="value")
        left = (notes["loss"] - notes["ce"]) / (.3 * notes["l_rep"] + .2 * notes["l_head"])
        assert left.tolist() == pytest.approx([factor(step / 12) for step in range(12)], abs=1e-5)
    assert not same(bits(models[0]), bits(models[1])) and not same(bits(models[0]), bits(models[2]))


def test_a_run_that_diverges_is_dropped_and_the_rest_go_on():
    bad, good, alone = new(seed=1), new(seed=2), new(seed=2)
    with torch.no_grad(): bad.prompt[0, 0] = float("nan")
    go = lambda models: train_population(Population(models), DATA["train"], DATA["validation"], 3,
                                         [.01] * len(models), 6, [(5, 5)] * len(models), progress=False)
    go([bad, good]); go([alone])
    assert bad.fitted["diverged"] == 1 and "diverged" not in good.fitted
    assert close(bits(good), bits(alone), 1e-4) and bad.history["step"].max() == 0
    with pytest.raises(Diverged, match="step 1"): go([bad])


def test_a_population_resumes_exactly(tmp_path):
    def go(folder, epochs=4, **more):
        models = [new(seed=r, init="random") for r in range(3)]
        train_population(Population(models), DATA["train"], DATA["validation"], epochs, [.01, .02, .03], 6,
                         [(r, r) for r in range(3)], checkpoint=folder, progress=False, **more)
        return models
    whole = go(tmp_path / "whole")
    stop = training.keep_state
    def kill(state, *rest):
        stop(state, *rest)
        if state.step == 8: raise RuntimeError("killed")
    training.keep_state = kill
    try:
        with pytest.raises(RuntimeError, match="killed"): go(tmp_path / "cut")
    finally: training.keep_state = stop
    for one, other in zip(whole, go(tmp_path / "cut", resume=True)):
        assert same(bits(one), bits(other)) and one.history.equals(other.history)


def test_bf16_trains_and_stays_finite():
    model = new()
    history = model.fit(DATA["train"], DATA["validation"], mixed_precision="bf16", **QUICK)
    assert history["value"].map(pd.notna).all()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in bits(model).values())
    exact = new()
    first = lambda h: h.query("quantity == 'loss' and step == 1")["value"].item()
    other = exact.fit(DATA["train"], DATA["validation"], **QUICK)
    assert first(history) == pytest.approx(first(other), rel=.05) and first(history) != first(other)


TWO = """
import sys, torch
torch.set_num_threads(1)
from accelerate import Accelerator
from infoprompt.core import InfoPromptModel, load_data
data = load_data("nano/sentiment", shots=20, seed=0)
model = InfoPromptModel("nano", "nano/sentiment", init="vocab")
history = model.fit(data["train"], data["validation"], epochs=3, batch_size=6, lr=1e-3, progress=False,
                    checkpoint=sys.argv[1] + "/run")
me = Accelerator().process_index
assert Accelerator().num_processes == 2
model.save_pretrained(f"{sys.argv[1]}/{me}")
history.to_parquet(f"{sys.argv[1]}/{me}.parquet")
"""


def test_two_processes_train_what_one_trains(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               tmp_path / "two.py", tmp_path]
    env = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), ACCELERATE_USE_CPU="true")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one = new()
    history = one.fit(DATA["train"], DATA["validation"], **QUICK | dict(lr=1e-3))
    assert not close(bits(one), bits(new()), 1e-3)
    for me in "01":
        assert close(bits(one), load_file(tmp_path / me / "prompt.safetensors"), 1e-5)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{me}.parquet"), history, atol=1e-4, rtol=1e-4)
    assert (tmp_path / "run/state.safetensors").is_file()


def test_batch_of_one_row_serves_two_processes():
    "A process without rows of its own adds nothing."
    class Second:
        process_index, num_processes, device = 1, 2, torch.device("cpu")
        autocast = staticmethod(torch.enable_grad)
        backward = staticmethod(lambda loss: loss.backward())
        reduce = staticmethod(lambda x, how: x)
    batch = Toy(rows=1)(0, 0)
    grads, means = training.gradients(toy_terms, toy_start(), batch, Second)
    assert not any(g.any() for g in grads.values()) and not means["loss"].any()


def test_progress_bar_speaks_of_the_newest_notes(capsys):
    toy(epochs=1)
    train(toy_terms, toy_start(), Toy(), Accelerator(), 1, .01,
          evaluate=lambda p: dict(score=p["w"].norm(dim=1), val_loss=p["b"]))
    shown = capsys.readouterr().err
    assert "5/5" in shown and "loss=" in shown and "score=" in shown and "grad_norm" not in shown
