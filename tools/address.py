"""The repository's address: one setting, `repository` in settings.ini, empty while nobody knows it.

usage: python tools/address.py            write it where notebooks need it: what Colab opens and installs, what a
                                          reader clones
       python tools/address.py --needed   end with an error while it is empty, as a release must

setup.py hands it to the package's metadata, and tools/docs.py to the site.
"""
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORM = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")
COLAB = 'if "google.colab" in str(get_ipython()):\n'
INSTALL = re.compile(rf"(?<={re.escape(COLAB)})    %pip .*\n")
FIRST = "**Train a soft prompt**"
CLONE = re.compile(rf"(?:```sh\ngit clone [^`]*```\n\n)?(?={re.escape(FIRST)})")
DOOR = "* **[Open the lessons in JupyterLab]"
COLAB_DOOR = re.compile(rf"(?:\* \*\*\[Open a lesson in Colab\].*\n)?(?={re.escape(DOOR)})")


def repository(root: Path = ROOT  # the folder with settings.ini
               ) -> str:
    "The setting: https://github.com/owner/name, or nothing."
    config = ConfigParser()
    config.read_string((root / "settings.ini").read_text(encoding="utf-8"))
    found = config["DEFAULT"].get("repository", "").strip()
    if found and not FORM.fullmatch(found):
        sys.exit(f"settings.ini: repository is {found!r}; write https://github.com/owner/name, or leave it empty")
    return found


def site(address: str  # of a repository
         ) -> str:
    "Where GitHub shows the repository's pages."
    owner, name = FORM.fullmatch(address).groups()
    return f"https://{owner.lower()}.github.io/" + ("" if name.lower() == f"{owner.lower()}.github.io" else f"{name}/")


def in_colab(address: str,  # of a repository
             name: str  # of a lesson's file
             ) -> str:
    "Where Colab opens a lesson."
    return f"https://colab.research.google.com/github/{'/'.join(FORM.fullmatch(address).groups())}/blob/main/nbs/{name}"


def placed(text: str,  # of a cell
           address: str  # of the repository; may be empty
           ) -> str:
    "The cell with the address where Colab opens or installs or a reader clones; without it, where there is none."
    if text.split("#| hide\n")[-1].startswith(COLAB):
        bare = INSTALL.sub("", text)
        return bare.replace(COLAB, f"{COLAB}    %pip install -q git+{address}\n") if address else bare
    if DOOR in text:
        link = f"[Open a lesson in Colab]({in_colab(address, '01_soft_prompts.ipynb')})" if address else ""
        door = f"* **{link}**: it installs the package by itself.\n" if address else ""
        return COLAB_DOOR.sub(door, text, count=1)
    clone = f"```sh\ngit clone {address} && cd {address.split('/')[-1]}\n```\n\n" if address else ""
    return CLONE.sub(clone, text, count=1) if FIRST in text else text


def write(path: Path,  # of a notebook
          address: str  # of the repository; may be empty
          ):
    "Put the address into a notebook; one that holds it already is not touched."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    before = ["".join(cell["source"]) for cell in notebook["cells"]]
    after = [placed(text, address) for text in before]
    if before == after: return
    for cell, text in zip(notebook["cells"], after): cell["source"] = text.splitlines(True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    address = repository()
    if "--needed" not in sys.argv:
        for path in sorted((ROOT / "nbs").rglob("*.ipynb")): write(path, address)
    elif not address:
        sys.exit("settings.ini: repository is empty; write its address there (https://github.com/owner/name), "
                 "then run python tools/address.py and python tools/readme.py")
