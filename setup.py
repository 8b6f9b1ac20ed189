"""Hands version, requirements and the repository's address from settings.ini to setuptools; pyproject.toml has the rest."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser()
config.read_string(Path(__file__).with_name("settings.ini").read_text(encoding="utf-8"))
settings = {key: value.strip() for key, value in config["DEFAULT"].items()}
extras = {key.removesuffix("_requirements"): value.splitlines()
          for key, value in settings.items() if key.endswith("_requirements")}
urls = {"Repository": settings["repository"]} if settings["repository"] else {}
setup(version=settings["version"], install_requires=settings["requirements"].splitlines(), extras_require=extras,
      project_urls=urls)
