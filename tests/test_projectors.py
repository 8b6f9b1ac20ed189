"Prompts carried from one encoder to another: gradients, distances, anchor words, files, bad input."
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from infoprompt.base.checks import InputError
from infoprompt.base.files import packed, read_whole
from infoprompt.core import InfoPromptModel, load_data
from infoprompt.engine.anchors import anchor_projector, anchors
from infoprompt.engine.projectors import ByDistance, ByTask, fit_projector, load_projector, new_projector
from infoprompt.method.encoders import Encoder
from infoprompt.method.prompts import start_prompt
from infoprompt.show.travel import CARRIED, SPLITS, carried, fig_carried
from small import NANO

WIDE = Encoder("nano-wide")
TASKS = "nano/topic", "nano/relation-place"


def starts(encoder, n=4, many=5):
    return {t: torch.stack([start_prompt("vocab", n, encoder, seed=10 * i + s) for s in range(many)])
            for i, t in enumerate(TASKS)}


@pytest.fixture(scope="module")
def data():
    return {t: load_data(t, shots=8, seed=0) for t in TASKS}


@pytest.mark.parametrize("shape", ["flat", "vector"])
def test_the_gradient_of_the_task_reaches_the_projector(shape, data):
    one = new_projector(NANO, WIDE, 4, shape)
    ByTask(starts(NANO), data, WIDE).loss(one, range(8), torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in one.parameters())
    assert not any(p.requires_grad for p in WIDE.parameters())


def test_the_loss_is_that_of_a_model_that_wears_the_carried_prompt(data):
    one = new_projector(NANO, WIDE, 4)
    prompts = {t: p[:1] for t, p in starts(NANO).items()}
    way, found = ByTask(prompts, data, WIDE), []
    for t in TASKS:
        model = InfoPromptModel(WIDE, t, beta=0, gamma=0, init="zero", head="fixed")
        model.prompt.data.copy_(one(prompts[t][0]).detach())
        logits, rows = model._logits(data[t]["train"])
        found.append(cross_entropy(logits, torch.tensor([r["label"] for r in rows])))
    torch.testing.assert_close(way.loss(one, range(len(way))), torch.stack(found).mean(), atol=1e-5, rtol=1e-4)


def test_training_by_distance_is_plain_regression():
    start, end = starts(NANO, 2, 3), starts(WIDE, 2, 3)
    how = dict(by="distance", shape="vector", lrs=[2e-3], epochs=3, batch_size=99)
    made = fit_projector(start, NANO, WIDE, ends=end, **how)
    plain, unit = new_projector(NANO, WIDE, 2, "vector"), WIDE.words.std()
    opt = torch.optim.AdamW(plain.parameters(), lr=2e-3, weight_decay=0)
    whole = torch.cat([*start.values()]).requires_grad_(False), torch.cat([*end.values()])
    for _ in range(3):
        opt.zero_grad()
        hidden = torch.tanh(plain.net[0](whole[0] / NANO.words.std()))
        (((plain.net[3](plain.net[2](hidden)) - whole[1]) / unit) ** 2).mean().backward()
        opt.step()
    for ours, theirs in zip(made.parameters(), plain.parameters()):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_rate_is_chosen_on_what_was_held_back():
    start, end = starts(NANO), starts(WIDE)
    loss = {lr: fit_projector(start, NANO, WIDE, by="distance", ends=end, lrs=[lr], epochs=8).facts["held_back"]
            for lr in (1e-9, 5e-3, 1e4)}
    best = fit_projector(start, NANO, WIDE, by="distance", ends=end, lrs=[*loss], epochs=8)
    assert best.facts["lr"] == min(loss, key=loss.get) != 1e4 and best.facts["held_back"] == min(loss.values())
    changed = {t: torch.cat([p[:4], p[4:] + 9]) for t, p in start.items()}
    again = fit_projector(changed, NANO, WIDE, by="distance", ends=end, lrs=[5e-3], epochs=8)
    one = fit_projector(start, NANO, WIDE, by="distance", ends=end, lrs=[5e-3], epochs=8)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), one.parameters()))


def test_training_by_task_helps_the_tasks(data):
    prompts = starts(NANO)
    made = fit_projector(prompts, NANO, WIDE, data=data, lrs=[5e-3], epochs=30)
    way = ByTask(prompts, data, WIDE)
    assert way.judge(made) < way.judge(new_projector(NANO, WIDE, 4)) - .3
    assert made.facts["by"] == "task" and made.facts["tasks"] == [*TASKS]
    assert not any(p.requires_grad for p in made.parameters())


def test_anchors_keep_the_cosines_as_well_as_can_be():
    words, prompt = anchors(NANO, WIDE), start_prompt("vocab", 3, NANO, seed=4)
    there, here = (e.words[e.tokenizer.convert_tokens_to_ids(words)] for e in (NANO, WIDE))
    cosines = lambda x, table: normalize(x - table.mean(0), dim=-1) @ normalize(table - table.mean(0), dim=-1).T
    wanted, made = cosines(prompt, there), anchor_projector(NANO, WIDE)
    assert "film" in words and not {"<s>", "<mask>", "films"} & {*words}
    found = (normalize(here - here.mean(0), dim=-1).double()).pinverse() @ wanted.T.double()
    torch.testing.assert_close(normalize(made(prompt) - here.mean(0), dim=-1), normalize(found.T, dim=-1).float(),
                               atol=1e-4, rtol=1e-3)
    long = lambda x, table: (x - table.mean(0)).norm(dim=-1) / (table - table.mean(0)).norm(dim=-1).mean()
    torch.testing.assert_close(long(made(prompt), here), long(prompt, there), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [lambda: new_projector(NANO, WIDE, 4, seed=3), lambda: anchor_projector(NANO, WIDE),
                                  lambda: new_projector(NANO, WIDE, 4, "vector", hidden=7)])
def test_a_saved_projector_carries_the_same(make, tmp_path):
    one, prompt = make(), start_prompt("vocab", 4, NANO, seed=1)
    one.save(tmp_path / "one.safetensors")
    again = load_projector(tmp_path / "one.safetensors", NANO, WIDE)
    assert torch.equal(one(prompt), again(prompt)) and again.facts == one.facts


def test_a_projector_of_other_encoders_is_refused(tmp_path):
    file = tmp_path / "one.safetensors"
    new_projector(NANO, WIDE, 4).save(file)
    with pytest.raises(InputError, match="source encoder 'nano', and 'nano-wide' has other") as told:
        load_projector(file, WIDE, NANO)
    assert "\n" not in str(told.value)
    facts, tensors = read_whole(file)
    file.write_bytes(packed({k: v for k, v in facts.items() if k != "shape"}, tensors))
    with pytest.raises(InputError, match="holds no projector"): load_projector(file, NANO, WIDE)
    file.write_bytes(packed(facts | dict(hidden=3), tensors))
    with pytest.raises(InputError, match="do not fit"): load_projector(file, NANO, WIDE)
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="not whole"): load_projector(file, NANO, WIDE)


@pytest.mark.parametrize("change, says", [
    (dict(prompts={}), "learns from prompts"), (dict(prompts=[1]), "learns from prompts"),
    (dict(prompts=dict(a=torch.ones(2, 4, 65))), r"give \(prompt, n_prompt, 64\)"),
    (dict(prompts=dict(a=torch.ones(2, 4, 64), b=torch.ones(2, 5, 64))), "all of one length"),
    (dict(prompts=dict(a=torch.ones(64))), "have shape"),
    (dict(prompts=dict(a=torch.full((2, 4, 64), torch.nan))), "not finite"),
    (dict(by="magic"), "choose 'task' or 'distance'"), (dict(shape="anchors"), "choose 'flat' or 'vector'"),
    (dict(by="distance"), "give ends="), (dict(data=None), "give data="), (dict(target=NANO), "needs no projector"),
    (dict(by="distance", ends={"nano/topic": torch.ones(2, 4, 64)}), "trained on the encoder 'nano-wide'"),
    (dict(by="distance", ends={"nano/topic": torch.ones(3, 4, 96)}), "missing, fewer or longer"),
    (dict(lrs=[]), "lrs is"), (dict(lrs=1e-3), "lrs is"), (dict(lrs=[-1.]), "lrs holds"),
    (dict(epochs=0), "epochs is 0"),
    (dict(epochs="3"), "epochs is '3'"), (dict(batch_size=0), "batch_size is 0"), (dict(hidden=0), "hidden is 0"),
    (dict(seed="x"), "seed is 'x'"), (dict(source="nowhere"), "cannot load the encoder 'nowhere'"),
    (dict(data={"nano/topic": [dict(text="the soup")]}), "have no labels")])
def test_what_cannot_be_fitted(change, says, data):
    given = dict(prompts={"nano/topic": torch.ones(2, 4, 64)}, source=NANO, target=WIDE, data=data)
    with pytest.raises(InputError, match=says) as told: fit_projector(**dict(given, lrs=[1e-3], epochs=1) | change)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("shape, prompt, says", [
    ("flat", torch.ones(5, 64), "5 vectors, and this flat projector reads 4"), ("flat", torch.ones(4, 96), "'nano'"),
    ("vector", torch.ones(4, 96), "'nano'"), ("vector", torch.ones(64), "shape"), ("flat", [[1.] * 64] * 4, "shape"),
    ("flat", torch.full((4, 64), torch.nan), "not finite")])
def test_what_cannot_be_carried(shape, prompt, says):
    with pytest.raises(InputError, match=says): new_projector(NANO, WIDE, 4, shape)(prompt)
    assert new_projector(NANO, WIDE, 4, "vector")(torch.ones(9, 64)).shape == (9, 96)


def test_too_few_anchors_are_refused():
    with pytest.raises(InputError, match="share 3 anchor words"): anchor_projector(NANO, WIDE, ["film", "soup", "was"])


def test_distances_are_in_variances_of_words():
    start, end = starts(NANO, 2, 1), starts(WIDE, 2, 1)
    one, way = new_projector(NANO, WIDE, 2), ByDistance(start, end, WIDE)
    apart = one(torch.cat([*start.values()])) - torch.cat([*end.values()])
    torch.testing.assert_close(way.loss(one, range(2)), apart.square().mean() / WIDE.words.var())


def test_the_figure_shows_what_is_stored():
    table, texts = carried()
    for target in texts:
        for name, way in CARRIED.items():
            for said, split in SPLITS.items():
                fig = fig_carried(target, name, said, 2)
                part = table.query("target == @target and way == @way and split == @split and what == 'its prompt'")
                dots, cells = fig.data
                shown = dots.x[dots.y.index("carried prompt")]
                assert len(part) == 20 and shown == pytest.approx(part["score"].mean(), abs=1e-3)
                assert all(abs(sum(row) - 1) < .01 for row in cells.z) and len(cells.z) == 4
                assert ("random words, carried" in dots.y) == way.startswith("task") and target in fig.layout.title.text
