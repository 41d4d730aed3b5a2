"""The receivers that docs/receiving.md shows, made ready outside the repository and run as a reader of the page would run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SNIPPETS = Path(__file__).parents[1] / "docs" / "receiving"
LANGUAGES = ("python", "javascript", "go")
_FETCH_S = 60
_BUILD_S = 180


def prepare(language: str, folder: Path) -> list[str]:
    """The command of a receiver, with its library in `folder`. Skips where the toolchain or the library cannot be had."""
    if language == "python":
        return [sys.executable, str(SNIPPETS / "receiver.py")]
    if language == "javascript":
        node, npm = _tool("node"), _tool("npm")
        shutil.copy(SNIPPETS / "receiver.mjs", folder)
        flags = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=0", f"--cache={folder / 'cache'}"]
        _fetch([npm, "install", *flags, "standardwebhooks"], folder, {})
        return [node, str(folder / "receiver.mjs")]
    go = _tool("go")
    for name in ("receiver.go", "go.mod"):
        shutil.copy(SNIPPETS / name, folder)
    # `-modcacherw`: else what is downloaded could not be deleted.
    environment = {"GOFLAGS": "-mod=mod -modcacherw", "GOMODCACHE": str(folder / "modules"), "GOTOOLCHAIN": "local"}
    _fetch([go, "mod", "tidy"], folder, environment)
    built = subprocess.run(
        [go, "build", "-o", "receiver", "."],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=_BUILD_S,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return [str(folder / "receiver")]


@contextmanager
def running(command: Sequence[str], secret: str, inbox: Path) -> Iterator[str]:
    """Its address. It keeps in `inbox` what it takes."""
    environment = {"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret, "INBOX": str(inbox), "PORT": "0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("listening on "), said
            yield said.removeprefix("listening on ").strip()
            assert process.poll() is None, "it died of what it was sent"
        finally:
            process.kill()


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


def _fetch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    try:
        subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=_FETCH_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command[-2:])} had no answer within {_FETCH_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(command[-2:])} failed: {error.stderr.strip()[-200:]}")
