"What people read is English: notebooks, docstrings, comments, messages and documents, spelled and built correctly."
import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from conftest import ROOT

DOCUMENTS = "README.md", "CHANGELOG.md", "CONTRIBUTING.md"
NOTEBOOKS = [path for path in (ROOT / "nbs").rglob("*.ipynb") if not path.relative_to(ROOT).match("*/.*/*")]
SCRIPTS = [path for folder in ("tests", "benchmarks", "tools") for path in (ROOT / folder).glob("*.py")]
PAGES = [*(ROOT / "infoprompt/show").glob("*.js")]
FILES = {str(path.relative_to(ROOT)): path for path in sorted(
    [*(ROOT / name for name in DOCUMENTS), *NOTEBOOKS, *SCRIPTS, *PAGES]) if path != Path(__file__)}

# Rules of harper that are off, and why. Its other rules, about nine hundred, are on.
OFF = {
    "codespell checks the spelling: harper knows neither `softmax` nor `InfoNCE`":
        "SpellCheck OrthographicConsistency SplitWords DisjointPrefixes MergeWords CompoundNouns Overall Everyone",
    "a comment on a parameter is no sentence, and a heading is written like one":
        "SentenceCapitalization UseTitleCase NoFrenchSpaces Spaces MissingPreposition MissingDeterminer",
    "mathematics and code: the index i, options such as --beta, dir, min and param as names, sizes in MB":
        "CapitalizePersonalPronouns MultipleSequentialPronouns WrongNegative Dashes CommaFixes UnclosedQuotes "
        "ExpandConfiguration ExpandMinimum ExpandControl "
        "ExpandStandardInputAndOutput ExpandParameter ExpandMemoryShorthands ExpandDirectory",
    "a matter of taste": "OxfordComma UseEllipsisCharacter EllipsisLength LongSentences Excellent CondenseAllThe "
                         "DiscourseMarkers AvoidAndAlso QuantifierNumeralConflict",
    "wrong about good sentences here": "SingleBe MissingTo DoToDueTo ModalBeAdjective ThatThan AWhile ToTwoToo "
                                       "LetsConfusion",
}

# Readers stumbled over these: what to write instead.
STUMBLES = {
    r"\bhangs? on\b": "depends on", r"\bwho only guesses\b": "whoever guesses", r"\bhands and feet\b": "say what it is",
    r"\bnobody tells\b": "that nobody knows", r"\bat the door\b": "on entry, at once",
    r"\bis left to [A-Z]": "say who does it: 'X trains ...'", r"\bnot a question to\b": "a run cannot tell",
    r"\bone too long\b": "one element too long", r"\bmend(s|ed)?\b": "fix, correct",
    r"\bwas told so\b": "got a message",
    r"\bsay nothing alone\b": "on its own says nothing", r"\bis none of [a-z]": "is not one of",
    r"(?<!there )\bis no (string|number|list|text|file|JSON|checkpoint)\b": "is not a ...",
}
SPEAKING = {"InputError", "InputWarning", "ValueError", "TypeError", "warn", "say", "exit", "echo", "add_argument"}


def literal(node: ast.expr) -> str:
    "The text of a string, with `x` in backticks where an f-string puts a value; empty for anything else."
    if isinstance(node, ast.Constant): return node.value if isinstance(node.value, str) else ""
    return "".join(literal(v) or "`x`" for v in node.values) if isinstance(node, ast.JoinedStr) else ""


def spoken(tree: ast.AST) -> list[str]:
    "Docstrings, and the messages of errors, warnings, figures and options."
    said = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            said.append(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SPEAKING:
            said += map(literal, [*node.args, *(k.value for k in node.keywords)])
    return [text for text in said if " " in text]


def comments(source: str) -> list[str]:
    "Comments, those on lines of their own that follow each other as one; nbdev's directives left out."
    found, last = [], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("#|"): continue
        text, alone = token.string.lstrip("# "), not token.line[:token.start[1]].strip()
        if alone and last == token.start[0] - 1: found[-1] += " " + text
        else: found.append(text)
        last = token.start[0] if alone else -1
    return found


def javascript(source: str) -> list[str]:
    "Comments in JavaScript, those on lines of their own that follow each other as one; titles between dashes left out."
    found, going = [], False
    for line in source.splitlines():
        text = re.search(r"(?:^|\s)// (.*)", line)
        alone = bool(text) and not line[:text.start()].strip()
        if title := text and "----" in text[1]: text = None
        if text and alone and going: found[-1] += " " + text[1]
        elif text: found.append(text[1])
        going = alone and not title
    return found


def code(source: str) -> list[str]:
    "What people read in code; nothing where it is not Python."
    source = re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.M)
    try: return spoken(ast.parse(source)) + comments(source)
    except (SyntaxError, tokenize.TokenError): return []


def texts(path: Path) -> list[str]:
    "What people read in a file, piece by piece; fenced code and tables of numbers left out."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py": return code(text)
    if path.suffix == ".js": return javascript(text)
    cells = json.loads(text)["cells"] if path.suffix == ".ipynb" else [dict(cell_type="markdown", source=[text])]
    found = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code": found += code(source)
        else: found += re.sub(r"^```.*?^```|^\|.*?$|<[^>]*>", "", source, flags=re.M | re.S).split("\n\n")
    return [piece for piece in found if piece.strip()]


INITIALS = r"\s+(nn|nbdev|svg|html|lr|mcc|np|xdist)\b"  # an nn.Module: the letters are spoken one by one
FINE = {"a finding", "more more"}  # something found; names of scripts' parts in a row


def is_symbol(text: str, start: int, end: int) -> bool:
    "Is this a letter of mathematics, as in `the rows of A` or `a(x)`, or does it stand before initials?"
    if text[start:end] == "A" and start > 0 or not re.match(r"\s+[^\W\d]{2}", text[end:end + 4]): return True
    return bool(re.match(INITIALS, text[end:end + 12]))


@pytest.fixture(scope="module")
def linter():
    "harper's grammar rules but for those that are off."
    harper = pytest.importorskip("harper", reason="no harper-py: install the extra dev")
    made = harper.Linter(harper.Dialect.BRITISH)
    off, rules = {rule for names in OFF.values() for rule in names.split()}, made.get_default_lint_config()
    assert off <= set(rules), f"harper has no rule {off - set(rules)}: take it out of OFF"
    made.set_lint_config({rule: on and rule not in off for rule, on in rules.items()})
    return made


def faults(pieces: list[str], linter) -> list[str]:
    "Each fault with the words around it and advice."
    text, found = "\n\n".join(pieces), []
    around = lambda start, end: " ".join(text[max(0, start - 50):end + 40].split())
    for lint in linter.lint(text):
        start, end = lint.span.start, lint.span.end
        if "indefinite article" in lint.message and is_symbol(text, start, end) or lint.problem_text in FINE: continue
        found.append(f"... {around(start, end)} ...: {lint.problem_text!r}: {lint.message}")
    for pattern, advice in STUMBLES.items():
        found += [f"... {around(*m.span())} ...: {m[0]!r}: write: {advice}" for m in re.finditer(pattern, text)]
    return found


@pytest.mark.parametrize("name", FILES)
def test_sentences_are_built_correctly(name, linter):
    found = faults(texts(FILES[name]), linter)
    assert not found, f"{name}: {len(found)} faults of English\n" + "\n".join(found)


def test_words_are_spelled_correctly():
    pytest.importorskip("codespell_lib", reason="no codespell: install the extra dev")
    where = ["nbs", "infoprompt", "tests", "benchmarks", "tools", "settings.ini", *DOCUMENTS]
    done = subprocess.run([sys.executable, "-m", "codespell_lib", *where], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}allow a word in pyproject.toml, [tool.codespell]"


@pytest.mark.parametrize("text, fault", [
    ("Take an prompt of four vectors.", "indefinite article"), ("It reads the the rows.", "repeat"),
    ("A run hangs on its start.", "depends on"), ("Ten trainings are stored.", "mass noun")])
def test_a_fault_is_found(text, fault, linter):
    assert any(fault in found for found in faults([text], linter))


def test_what_is_read_in_code_is_found():
    source = '''
def f(n,  # number of an row
      ):
    "A docstring that is read."
    # A comment that
    # goes on.
    %magic
    if n: raise InputError(f"{n} rows are too many: give fewer")
'''
    assert code(source) == ["A docstring that is read.", "`x` rows are too many: give fewer", "number of an row",
                            "A comment that goes on."]
    assert code("#| hide\nx = (") == []
    script = '// ---- a title ----\n// One that\n// goes on.\nlet a = "http://b"; // and an end\n// Another.'
    assert javascript(script) == ["One that goes on.", "and an end", "Another."]
    assert is_symbol("the rows of A are", 12, 13) and is_symbol("a(x)", 0, 1) and not is_symbol("an prompt", 0, 2)
