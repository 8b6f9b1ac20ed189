"""One model answers many threads as it answers one: bit for bit where the batches are the same."""
import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import tiny
import torch
from transformers.utils import logging as hf_logging

from infoprompt.core import InfoPromptModel, Task
from infoprompt.method.encoders import Encoder

WORDS = "good bad dull fine plot actor story very not long short film".split()
TASK = Task("mood", verbalizer=dict(bad="bad", good="good"))
KINDS = "bert", "distilbert", "deberta-v2"


def text(n):
    "Text number n: words and a length of its own, so that [MASK] stands elsewhere than in its neighbours."
    return " ".join(WORDS[(n * 7 + i * i) % len(WORDS)] for i in range(1 + n % 17))


REQUESTS = [[text(n), text(3 * n + 1)][:1 + n % 2] for n in range(120)]


def at_once(ask, threads, requests=REQUESTS):
    "Answers to all requests, with every thread let go at the same moment."
    start = Barrier(threads)
    with ThreadPoolExecutor(threads, initializer=start.wait) as pool:
        return list(pool.map(ask, requests))


def bits(model, texts):
    return model.predict_proba(texts).to_numpy().tolist()


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tmp_path_factory):
    return Encoder(tiny.save(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture(scope="module")
def model(encoder):
    return InfoPromptModel(encoder, TASK, n_prompt=3, init="random")


@pytest.fixture(scope="module")
def alone(model):
    "What one thread answers."
    return [bits(model, r) for r in REQUESTS]


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_on_one_model(threads, model, alone):
    assert len({str(a) for a in alone}) > 100  # the answers tell the requests apart
    assert at_once(lambda r: bits(model, r), threads) == alone


def test_several_models_on_one_encoder(encoder):
    models = [InfoPromptModel(encoder, TASK, n_prompt=n, init="random", prompt=kind, seed=n)
              for n, kind in ((1, "free"), (4, "instance"), (7, "free"))]
    requests = [(m, r) for r in REQUESTS[:40] for m in models]
    answer = lambda request: bits(*request)
    assert at_once(answer, 6, requests) == [answer(r) for r in requests]


def test_a_copy_of_an_encoder_beside_it(encoder, model, alone):
    other = copy.deepcopy(model)
    object.__setattr__(other, "encoder", copy.deepcopy(encoder))
    models = [model, other]
    requests = [(models[n % 2], r) for n, r in enumerate(REQUESTS)]
    assert at_once(lambda request: bits(*request), 4, requests) == alone


def test_tasks_of_an_event_loop(model, alone):
    async def all_of_them():
        return await asyncio.gather(*(asyncio.to_thread(bits, model, r) for r in REQUESTS))
    assert asyncio.run(all_of_them()) == alone


def test_the_tokenizer_may_be_used_beside_the_model(model, alone):
    tokenizer = model.encoder.tokenizer

    def ask(request):
        tokenizer(request, padding="max_length", max_length=4, truncation=True, split_special_tokens=False)
        return bits(model, request)

    def answer(request):  # two threads that change one tokenizer may fail, as in `transformers`; the model does not
        try:
            return ask(request)
        except RuntimeError as e:
            assert "borrowed" in str(e)
            return bits(model, request)
    assert at_once(answer, 4) == alone


def test_what_was_read_last_leaves_no_trace(encoder, model):
    ids, _ = encoder.tokenizer("good film", return_tensors="pt")["input_ids"], bits(model, ["dull"])
    assert encoder.body(input_ids=ids)[0].shape[1] == ids.shape[1]


def test_an_error_leaves_no_trace(encoder):
    embeds, mask = torch.zeros(1, 5, encoder.d_in), torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(RuntimeError):
        encoder.hidden(embeds, mask, mask, mask * 0, torch.full((1, 1), 9))
    assert encoder.body(inputs_embeds=embeds, attention_mask=mask)[0].shape[1] == 5


def test_encoders_load_in_many_threads(tmp_path):
    folder, level = tiny.save(tmp_path), hf_logging.get_verbosity()
    prints = at_once(lambda _: Encoder(folder).fingerprint, 6, range(12))
    assert all(p == prints[0] for p in prints) and hf_logging.get_verbosity() == level
    assert hf_logging.is_progress_bar_enabled()


def test_a_web_server_with_a_pool_of_threads(model, alone):
    fastapi, client = pytest.importorskip("fastapi"), pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()

    @app.post("/predict")
    def predict(texts: list[str]):  # a plain function: FastAPI runs it in its pool
        return bits(model, texts)

    with client.TestClient(app) as web:
        assert at_once(lambda r: web.post("/predict", json=r).json(), 8) == alone
