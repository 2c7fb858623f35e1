"""The page on runs: its commands run, in order, and its file is one."""

import re
import shlex
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from hebbax import cli

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the pages are not part of an installed package")
def test_the_commands_of_the_page_run(tmp_path, monkeypatch, threads):
    jax.devices()
    monkeypatch.chdir(tmp_path)
    commands = "".join(blocks("bash")).splitlines()
    assert len(commands) >= 5
    for command in commands:
        program, *words = shlex.split(command)
        words, into = (words[:-2], words[-1]) if words[-2] == ">" else (words, None)
        result = CliRunner().invoke(cli.app, words)
        assert program == "hebbax" and result.exit_code == 0, command + result.output
        if into:
            Path(into).write_text(result.stdout)
    (content,) = blocks("toml")
    Path("page.toml").write_text(content)
    result = CliRunner().invoke(cli.app, ["simulate", "cuba", "--config", "page.toml", "--write-config"])
    assert result.exit_code == 0 and 'membrane_time = "16.8 ms"' in result.stdout
