"""Rows shared out among threads: the same training, whatever their number, and nothing left behind."""
import multiprocessing
import threading
from functools import partial

import pytest
import torch
from small import NANO, bits, close, new, same

from infoprompt.base.endings import Interrupted
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine import threads
from infoprompt.engine.population import Population, train_population
from infoprompt.study.sweeps import Alone

DATA = load_data("nano/sentiment", shots=16, seed=0)
RUNS = [dict(), dict(prompt="instance"), dict(beta=0, gamma=0), dict(n_prompt=2, k=1, head_negatives="population"),
        dict(n_prompt=2, k=1, head_negatives="population", seed=1), dict(bottleneck=True)]
FIT = dict(epochs=1, lrs=1e-2, batch_size=8)


@pytest.fixture
def many():
    "Sets the number of threads, and puts it back."
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def trained(models=None, data=DATA, **more):
    "Models of several kinds after a few steps as one population."
    models = models or [new(**run) for run in RUNS]
    seeds = [(0, m.settings["seed"]) for m in models]
    fit = FIT | dict(progress=False, accelerator=Alone(torch.device("cpu"))) | more
    train_population(Population(models), data["train"], data["validation"], fit.pop("epochs"),
                     [fit.pop("lrs")] * len(models), fit.pop("batch_size"), seeds, **fit)
    return models


def count(monkeypatch):
    "How many parts each shared pass had, as they come."
    seen, real = [], threads.at_once
    monkeypatch.setattr(threads, "at_once", lambda jobs: seen.append(len(jobs)) or real(jobs))
    return seen


@pytest.mark.parametrize("number, parts", [(2, 2), (3, 3), (64, 3)])
def test_any_number_of_threads_trains_the_same(number, parts, many, monkeypatch):
    many(1)
    seen = count(monkeypatch)
    want = trained()
    assert not seen
    many(number)
    found = trained()
    assert max(seen) == parts and torch.get_num_threads() == number and threads.THREADS.get() is None
    for one, other in zip(want, found): assert close(bits(one), bits(other), 1e-5)
    assert all(same(bits(one), bits(other)) for one, other in zip(found, trained()))  # and the same again


def test_names_are_shared_out_too(many, monkeypatch):
    data = load_data("nano/entities", shots=16, seed=0)
    make = lambda: [InfoPromptModel(NANO, "nano/entities", init="vocab", seed=s) for s in range(5)]
    many(1)
    want = trained(make(), data)
    many(2)
    seen = count(monkeypatch)
    assert all(close(bits(one), bits(other), 1e-5) for one, other in zip(want, trained(make(), data))) and 2 in seen


def test_few_rows_stay_together(many, monkeypatch):
    many(2)
    seen = count(monkeypatch)
    trained([new()])
    assert not seen and torch.get_num_threads() == 2


def test_a_gpu_or_another_precision_stays_whole(many):
    many(2)
    for device, precision, wanted in ("cpu", "no", 2), ("cpu", "bf16", None), ("cuda", "no", None):
        with threads.sharing(320, device, precision): assert threads.THREADS.get() == wanted
        assert torch.get_num_threads() == 2


def test_an_error_in_a_thread_is_raised_and_leaves_nothing(many, monkeypatch):
    many(2)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(threads, "states_at_mask", lambda *args: 1 / 0)
        trained()
    assert torch.get_num_threads() == 2 and threads.THREADS.get() is None
    trained()


def test_stopped_and_resumed_bit_for_bit(many, tmp_path, monkeypatch):
    many(2)
    want = trained(epochs=2)
    calls, real = [], threads.at_once
    def stop(jobs):
        calls.append(1)
        if len(calls) == 9: raise KeyboardInterrupt
        return real(jobs)
    monkeypatch.setattr(threads, "at_once", stop)
    with pytest.raises(Interrupted): trained(epochs=2, checkpoint=tmp_path)
    assert torch.get_num_threads() == 2
    found = trained(epochs=2, checkpoint=tmp_path, resume=True)
    assert all(same(bits(one), bits(other)) for one, other in zip(want, found))


def test_a_checkpoint_knows_the_number(many, tmp_path):
    many(2)
    trained(checkpoint=tmp_path)
    many(3)
    with pytest.warns(UserWarning, match="threads 2 there, 3 here"): trained(checkpoint=tmp_path, resume=True)


def test_populations_side_by_side(many):
    many(2)
    want, found = trained(), {}
    def go(i): found[i] = trained()
    callers = [threading.Thread(target=go, args=(i,)) for i in range(4)]
    for t in callers: t.start()
    for t in callers: t.join()
    assert len(found) == 4 and torch.get_num_threads() == 2
    for models in found.values(): assert all(close(bits(one), bits(other), 1e-5) for one, other in zip(want, models))


def rows_twice(x, at): return 2 * x


def test_gradients_once_and_not_twice(many):
    many(2)
    x = torch.randn(6, 3, requires_grad=True)
    out = threads.SharedOut.apply(rows_twice, [(0, 2), (2, 6)], x)
    assert torch.equal(out, 2 * x)
    grad, = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    assert torch.allclose(grad, 8 * x)
    assert torch.equal(torch.autograd.grad(out.square().sum(), x)[0], grad)  # a watch reads gradients before the step
    again, = torch.autograd.grad(threads.SharedOut.apply(rows_twice, [(0, 6)], x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"): again.sum().backward()


def child(queue):
    torch.set_num_threads(2)
    queue.put(threads.at_once([partial(int, "1"), partial(int, "2")]))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_has_threads_of_its_own(many):
    many(2)
    threads.at_once([partial(int, "1"), partial(int, "2")])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == [1, 2]
    process.join()
