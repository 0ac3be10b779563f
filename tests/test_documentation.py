"""The commands and links of the documentation lead somewhere."""

import re
import shlex

import pytest
import typer.main

from detect.cli.app import app
from detect.configs import shipped_configs, shipped_folders
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("*/*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
TAKES_CONFIG = {"train", "pretrain", "ablation", "data show"}


def commands_of(text):
    """The words of each `detect …` in the text's blocks of shell commands."""
    for block in BLOCK.findall(text):
        for line in re.split(r"\n|&&|;|\| ", block.replace("\\\n", " ")):
            _, found, words = f" {line}".partition(" detect ")
            if found and not line.lstrip().startswith("#"):
                yield shlex.split(words, comments=True)


def parse(words):
    """Check the words as the command line does, run nothing; gives command and configs."""
    command, context, path = typer.main.get_command(app), None, []
    while hasattr(command, "resolve_command"):
        context = command.make_context("detect", list(words), parent=context)
        name, command, words = command.resolve_command(context, list(words))
        path.append(name)
    context = command.make_context(name, list(words), parent=context)
    return " ".join(path), context.params


def test_pages_have_commands():
    assert len([command for page in PAGES for command in commands_of(page.read_text())]) >= 90
    assert list(
        commands_of("```bash\nA=1 detect a b \\\n  c=[1,2]  # d\nx && detect e\n```\n")
    ) == [
        ["a", "b", "c=[1,2]"],
        ["e"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist_with_their_options(page):
    for words in commands_of(page.read_text()):
        try:
            name, given = parse(words)
        except Exception as error:
            pytest.fail(f"{page.name}: detect {' '.join(words)}: {error}")
        configs = [given["config"]] if name in TAKES_CONFIG else []
        configs += [run for run in given.get("runs", []) if "/" not in run and "=" not in run]
        for config in configs:
            if not str(config).isupper() and not str(config).endswith(".yaml"):
                assert config in {*shipped_configs(), *shipped_folders()}, (page.name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120
