"""The page in which a reader removes tokens: it answers as Python does, by mouse and keyboard."""
import base64
import json

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from infoprompt.core import InfoPromptModel
from infoprompt.engine.masks import wear
from infoprompt.show.playground import stored
from infoprompt.show.prune import prune_page
from test_browser import watched  # noqa: F401
from test_playground import answers, opened, quiet  # noqa: F401

SHOWN = stored("pruning_scores")["shown"]


def without(*tokens) -> list:
    "What Python answers when tokens are blank: chances of each sentence."
    model = InfoPromptModel("nano", "nano/sentiment", n_prompt=20, beta=0., gamma=0., init="vocab")
    for name in "prompt", "head":
        numbers = np.frombuffer(base64.b64decode(SHOWN[name]), "<f4").copy()
        model.trained()[name].data.copy_(torch.tensor(numbers).view_as(model.trained()[name]))
    mask = torch.ones(20, 1)
    mask[list(tokens)] = 0
    wear(model, mask)
    return model.predict_proba(SHOWN["asked"]).to_numpy().tolist()


def agrees(page, *tokens):
    for text, true in zip(SHOWN["asked"], without(*tokens)):
        assert answers(page)[text] == pytest.approx(true, abs=.02), text


def token(page, i): return page.get_by_role("button", name=f"remove token {i}", exact=True)


MOST = int(np.abs(stored("pruning_scores")["tasks"]["sentiment"]["exact"][2]).argmax())


def test_a_removed_token_is_blank_as_in_python(quiet):  # noqa: F811
    page = quiet(prune_page())
    assert page.locator("[role=status]").inner_text() == "The prompt is whole."
    agrees(page)
    token(page, 3).click()
    page.get_by_text("token 3 is removed").wait_for()
    agrees(page, 3)
    token(page, MOST).click()
    page.get_by_text("Your first pick was token 3").and_(page.get_by_text(str(MOST))).wait_for()
    page.get_by_text(f"tokens {min(3, MOST)}, {max(3, MOST)} are removed").wait_for()
    agrees(page, 3, MOST)
    changed = sum(np.argmax(p) != np.argmax(q) for p, q in zip(without(3, MOST), SHOWN["chances"]))
    assert page.locator("[role=status]").inner_text().startswith(f"{changed} of 5 answers changed") and changed
    assert page.get_by_text("changed: it was").count() == changed
    token(page, 3).click()
    page.get_by_text(f"token {MOST} is removed").wait_for()
    agrees(page, MOST)
    page.get_by_text("make it whole again").click()
    page.get_by_text("The prompt is whole.").wait_for()
    agrees(page)


def test_the_keyboard_removes_tokens(quiet):  # noqa: F811
    page = quiet(prune_page())
    for _ in range(1 + MOST): page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text(f"token {MOST} is removed").wait_for()
    assert token(page, MOST).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Space")
    page.get_by_text("The prompt is whole.").wait_for()
    for _ in range(20 - MOST): page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".tokens small:visible").count() == 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_on_a_phone_and_in_the_dark(quiet, watched, scheme):  # noqa: F811
    watched.emulate_media(color_scheme=scheme)
    watched.set_viewport_size(dict(width=390, height=844))
    page = quiet(prune_page())
    token(page, MOST).click()
    page.get_by_text(f"token {MOST} is removed").wait_for()
    page.get_by_text("show what each removal does").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wrong = [found for found in Axe().run(page).response["violations"] if found["impact"] in ("serious", "critical")]
    assert not wrong, json.dumps(wrong)[:2000]


def test_what_the_page_lacks_it_says(quiet, browser, tmp_path):  # noqa: F811
    page = quiet(prune_page(weights=False))
    token(page, 0).click()
    page.get_by_text("Nothing can be computed: nano's weights are not on this page").wait_for()
    context = browser.new_context(java_script_enabled=False)
    still = opened(context.new_page(), tmp_path, prune_page(weights=False))
    assert still.get_by_role("group", name=SHOWN["asked"][0]).count() == 1
    assert "switch JavaScript on" in still.inner_text("body")
    context.close()
