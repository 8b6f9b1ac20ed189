"""What is left out: the same for scripts and the command line, as measured on the encoder or as published."""
import json

import pytest
import tiny
from typer.testing import CliRunner

from infoprompt.command.cli import app
from infoprompt.core import InfoPromptModel, Task, load_data
from infoprompt.method.encoders import Encoder
from infoprompt.method.settings import defaults
from infoprompt.study.sweeps import sweep
from small import NANO

TASK = Task("mood", ("text",), "label", {"bad": "bad", "good": "good"})
ROWS = [dict(text=f"the film was {word}", label=word) for word in ("good", "bad")] * 2
CHOSEN = {"nano": ("informed", 1e-2), "published": ("vocab", 1e-3)}


def chosen(config: dict) -> tuple:
    "The start and the rate that a model or its config.json names."
    return config["init"], config["fitted"]["lr"]


@pytest.mark.parametrize("preset, want", [("measured", "nano"), ("published", "published")])
def test_a_script_and_the_command_line_start_alike(preset, want, tmp_path):
    data = load_data("nano/sentiment", shots=4)
    model = InfoPromptModel(NANO, "nano/sentiment", preset=preset)
    model.fit(data["train"], epochs=1, progress=False)
    command = ["train", "--shots", "4", "--epochs", "1", "--preset", preset, "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, command).exit_code == 0
    ours, theirs = model.describe(), json.loads((tmp_path / "run/config.json").read_text())
    assert chosen(ours) == chosen(theirs) == CHOSEN[want]
    same = "n_prompt", "beta", "gamma", "k", "head_init", "preset"
    assert [ours[k] for k in same] == [theirs[k] for k in same] == [4, .1, .05, 32, "label", preset]
    assert ours["fitted"]["batch_size"] == theirs["fitted"]["batch_size"] == 8


def test_an_encoder_that_was_not_measured_keeps_to_the_paper(tmp_path):
    model = InfoPromptModel(Encoder(tiny.save(tmp_path)), TASK)
    model.fit(ROWS, epochs=1, progress=False)
    assert chosen(model.describe()) == CHOSEN["published"] == tuple(defaults("roberta-large").values())


@pytest.mark.parametrize("preset", ["measured", "published"])
def test_what_is_given_wins(preset):
    model = InfoPromptModel(NANO, "nano/sentiment", init="label", preset=preset)
    model.fit(load_data("nano/sentiment", shots=4)["train"], epochs=1, lr=.25, progress=False)
    assert chosen(model.describe()) == ("label", .25)


def test_an_instance_prompt_has_no_start_to_choose():
    assert InfoPromptModel(NANO, "nano/sentiment", prompt="instance").settings["init"] == "vocab"


@pytest.mark.parametrize("given, want", [({}, "nano"), (dict(preset="published"), "published")])
def test_a_sweep_that_lists_neither(given, want):
    table, best = sweep("nano/sentiment", NANO, 4, epochs=1, progress=False, betas=(0.,), gammas=(0.,),
                        seeds=range(1), **given)
    assert (table["init"].item(), table["lr"].item()) == CHOSEN[want]
    assert best.settings["init"] == CHOSEN[want][0]


def test_a_loaded_model_trains_by_its_own_preset(tmp_path):
    model = InfoPromptModel(NANO, "nano/sentiment", preset="published")
    model.save_pretrained(tmp_path)
    again = InfoPromptModel.from_pretrained(tmp_path, encoder=NANO)
    again.fit(load_data("nano/sentiment", shots=4)["train"], epochs=1, progress=False)
    assert again.fitted["lr"] == CHOSEN["published"][1]
