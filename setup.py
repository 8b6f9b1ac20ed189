"""Hands version and requirements from settings.ini to setuptools; the rest stands in pyproject.toml."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser()
config.read_string(Path(__file__).with_name("settings.ini").read_text(encoding="utf-8"))
settings = {key: value.strip() for key, value in config["DEFAULT"].items()}
extras = {key.removesuffix("_requirements"): value.splitlines()
          for key, value in settings.items() if key.endswith("_requirements")}
setup(version=settings["version"], install_requires=settings["requirements"].splitlines(), extras_require=extras)
