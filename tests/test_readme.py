"""The README keeps its word: the two commands stand at the top, its Python and its commands run as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pybackprop import cli

README = Path(__file__).parent.parent / "README.md"
COMMANDS = ('pip install ".[demo]" && pybackprop demo', 'pip install ".[test]" && pytest')
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not README.exists(), reason="the clone's README.md is not beside the tests")


def blocks() -> list[str]:
    """Python blocks, one program in the order of the page."""
    return BLOCK.findall(README.read_text(encoding="utf-8"))


def test_commands_stand_at_the_top():
    top = "\n".join(README.read_text(encoding="utf-8").splitlines()[:25])
    positions = [top.find(command) for command in COMMANDS]
    assert -1 not in positions and positions == sorted(positions)
    # Each on a line of its own, so that it can be copied.
    assert all(command in [line.strip() for line in top.splitlines()] for command in COMMANDS)


def test_examples_run(tmp_path):
    code = blocks()
    assert code, "README.md has no Python block"
    program = tmp_path / "readme.py"
    program.write_text("\n".join(code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "MPLBACKEND": "Agg"},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_block_is_tested_here():
    text = README.read_text(encoding="utf-8")
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert len(fences) % 2 == 0 and set(fences[::2]) == {"python", "bash"} and set(fences[1::2]) == {""}
    assert len(blocks()) == fences.count("python"), "a Python block is not found"


def commands() -> list[list[str]]:
    """The lines of all bash blocks, without comments, one command each."""
    text = README.read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                found.append(words[: words.index("&&")])
                words = words[words.index("&&") + 1 :]
            found.append(words)
    return found


def test_its_tables_can_be_trained_and_predicted(tmp_path, monkeypatch, capsys):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.uniform(20, 200, 60), "city": rng.choice(["Bern", "Oslo"], 60)})
    frame.assign(price=3 * frame["size"]).to_csv("houses.csv", index=False)
    frame.to_csv("new.csv", index=False)
    ours = [words[1:] for words in commands() if words[0] == "pybackprop" and words[1:] != ["demo"]]
    assert [words[0] for words in ours] == ["train", "predict"]
    for words in ours:
        assert cli.main(words) == 0, capsys.readouterr().err
    assert {"houses.safetensors", "houses.png", "new.predictions.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_its_other_commands_name_what_is_there():
    """The demo runs in test_cli.py; what builds, tests and measures is too long to run here."""
    clone = README.parent
    project = tomllib.loads((clone / "pyproject.toml").read_text(encoding="utf-8"))
    for words in commands():
        match words:
            case ["pip", "install", *options]:
                extras = re.fullmatch(r"\.\[(.+)\]", options[-1])
                assert extras and set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
            case ["python", "-m", module]:
                assert (clone / module / "__main__.py").exists()
            case ["python", script, *_]:
                assert (clone / script).exists()
            case ["pre-commit", "run", "--all-files"]:
                assert (clone / ".pre-commit-config.yaml").exists()
            case _:
                assert words[0] in ("pybackprop", "pytest"), f"no test knows the command {words}"


def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text)
    assert [t for t in targets if not (README.parent / t).exists()] == []
