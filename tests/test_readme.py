"""The README keeps its word: the two commands stand at the top, and its Python runs as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
COMMANDS = ('pip install ".[demo]" && pybackprop demo', 'pip install ".[test]" && pytest')
BLOCK = re.compile(r"(?P<skip><!-- no-test -->\s*)?^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not README.exists(), reason="the clone's README.md is not beside the tests")


def blocks() -> list[str]:
    """Python blocks, one program in the order of the page; ``<!-- no-test -->`` above a block leaves it out."""
    return [m["code"] for m in BLOCK.finditer(README.read_text(encoding="utf-8")) if not m["skip"]]


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


def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text)
    assert [t for t in targets if not (README.parent / t).exists()] == []
