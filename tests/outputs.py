"""Stored outputs against those of a fresh run: structure and words exactly, numbers as far as machines agree.

Whole numbers must be equal. Lines of a figure may differ by 10 % of their largest number, and other numbers by 2 % or
0.02: what outputs were seen to change by when the CPU's vector instructions were taken away, which training in single
precision feels most. Left out are progress on stderr, memory addresses and times.
"""
import base64
import copy
import json
import math
import re

import numpy as np
from nbdev.clean import clean_nb

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?(?! ?(?:m?s|µs|seconds?|minutes?)\b)")
TIME = re.compile(r"\d+(?:\.\d+)? ?(?:m?s|µs|seconds?|minutes?)\b")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
FIGURE = re.compile(r'<figure id="fig-')
ROOM = .1  # how far lines of a figure may differ, as a share of their largest number; other numbers by a fifth of it


def cells(notebook: dict) -> list[dict]:
    "The code cells of a notebook, cleaned as nbdev-clean does."
    cleaned = copy.deepcopy(notebook)
    clean_nb(cleaned)
    return [cell for cell in cleaned["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict) -> list[dict]:
    "What a cell shows, by type; progress on stderr aside."
    kept = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    return [o.get("data") or {o["output_type"]: o.get("text", o.get("traceback"))} for o in kept]


def number(text: str) -> float:
    "A written number."
    return float(text.rstrip("%").replace("−", "-"))


def near(one: str, other: str, room: float = ROOM) -> bool:
    "Are two written numbers the same, as far as machines agree?"
    if one.lstrip("+-−").isdigit() and other.lstrip("+-−").isdigit(): return number(one) == number(other)
    percent = 100 if "%" in one else 1
    return math.isclose(number(one), number(other), rel_tol=room / 5, abs_tol=room / 5 * percent)


def same_text(one: str, other: str, room: float = ROOM) -> bool:
    "The same words, and numbers that are near."
    one, other = (re.sub(r"-{3,}|\s+", " ", TIME.sub("time", ADDRESS.sub("", text))) for text in (one, other))
    numbers = list(zip(NUMBER.findall(one), NUMBER.findall(other)))
    return NUMBER.split(one) == NUMBER.split(other) and all(near(*p, room) for p in numbers)


def unpacked(table: dict) -> list:
    "The rows of a figure's table, whether packed in two bytes a number or not."
    if "rows" in table: return table["rows"]
    packed = table["packed"]
    if levels := packed.get("levels"):
        places = np.frombuffer(base64.b64decode(packed["data"]), "u1").reshape(-1, packed["width"])
        return np.array([*levels, *[np.nan] * (256 - len(levels))])[places].tolist()
    ints = np.frombuffer(base64.b64decode(packed["data"]), "<i2").astype(float).reshape(-1, packed["width"])
    values = packed["offset"] + packed["scale"] * ints
    values = np.exp(values) if packed["log"] else values
    return np.where(ints == -2**15, np.nan, values).tolist()


def is_line(node) -> bool:
    "Is this a list of numbers, some of them missing?"
    return isinstance(node, list) and bool(node) and all(isinstance(v, (int, float, type(None))) for v in node)


def same_lines(one: list, other: list, room: float) -> bool:
    "Lists of numbers that a reader could not tell apart."
    one, other = np.array(one, dtype=float), np.array(other, dtype=float)
    if one.shape != other.shape or np.mean(np.isnan(one) != np.isnan(other)) > room: return False
    most = np.nanmax(np.abs([0, *one, *other]))
    return bool(np.nanmax(np.abs([0, *(one - other)])) <= room * most + 1e-9)


def same_figure(one, other, room: float = ROOM) -> bool:
    "The same parts of a figure's JSON: texts and numbers that are near."
    if is_line(one) and is_line(other): return same_lines(one, other, room)
    if isinstance(one, dict) and "$" in one and isinstance(other, dict) and "$" in other:
        one, other = ([unpacked(node["$"])[i] for i in node["$"]["index"]] for node in (one, other))
    if type(one) is not type(other) and not isinstance(one, (int, float)): return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_figure(one[key], other[key], room) for key in one)
    if isinstance(one, list): return len(one) == len(other) and all(same_figure(*p, room) for p in zip(one, other))
    if isinstance(one, str): return same_text(one, other, room)
    return one == other or math.isclose(one, other, rel_tol=room, abs_tol=room / 5)


def parts(html: str) -> tuple[str, dict]:
    "A figure's html without its id, and its JSON."
    before, after = html.split("show(place, ")
    spec, end = json.JSONDecoder().raw_decode(after)
    return re.sub(r"fig-[0-9a-f]+", "fig", before) + after[end:], spec


def same(one, other, room: float = ROOM) -> bool:
    "Would a reader call two outputs of one type the same?"
    if isinstance(one, dict): return same_figure(one, other, room)
    one, other = "".join(one), "".join(other)
    if not (FIGURE.search(one) and FIGURE.search(other)): return same_text(one, other, room)
    (page, figure), (fresh_page, fresh_figure) = parts(one), parts(other)
    script = lambda text: text[text.index("<script>"):]
    return script(page) == script(fresh_page) and same_figure(figure, fresh_figure, room)


def differences(stored: dict, fresh: dict, room: float = ROOM) -> list[str]:
    "Cells whose stored outputs a fresh run does not give."
    found = []
    for before, after in zip(cells(stored), cells(fresh), strict=True):
        one, other = shown(before), shown(after)
        alike = [d.keys() for d in one] == [d.keys() for d in other] and all(
            same(d[kind], e[kind], room) for d, e in zip(one, other) for kind in d)
        if not alike: found.append("".join(before["source"])[:200])
    return found
