"""Requests nobody thought of: schemathesis makes them from the published contract and holds every answer to it, with all its checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract_document import PATH
from tests.flow.hostile.apis import OwnApi
from tests.flow.operator_token import make_operator
from triggers.provision import make_tenant
from triggers.system import System

_SEED = "20261124"
_SECONDS = 60
_ROOT = Path(__file__).parents[2]


@pytest.mark.verify
@pytest.mark.parametrize(
    "paths",
    ["^/(events|inbox)", "^/endpoints", "^/(event-types|operator|health|$)"],
    ids=["producers_and_readers", "endpoints", "the_rest"],
)
def test_it_finds_nothing(paths: str, system: System, tmp_path: Path) -> None:
    """A process, an organization and an operator of its own: its wrong keys and its quota are nobody else's."""
    tenant = make_tenant(system.settings, "schemathesis")
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f'hooks = "{Path(__file__).with_name("contract_hooks.py")}"\n'
        f'[auth.openapi]\napiKey = {{ api_key = "{tenant.key}" }}\noperator = {{ bearer = "{make_operator(system.settings)}" }}\n'
    )
    with OwnApi(system, tmp_path, {"TRIGGERS_ACCESS__FAILED_KEYS_PER_MINUTE_MAX": "0", "TRIGGERS_ACCESS__ENDPOINTS_MAX": "1000000"}) as (
        _,
        settings,
    ):
        command: list[str | Path] = [
            Path(sys.executable).with_name("st"), "--config-file", config, "run", PATH,
            "-u", f"http://{settings.api.host}:{settings.api.port}", "--include-path-regex", paths,
            "--checks", "all", "--max-response-time", "10", "--seed", _SEED, "--max-time", str(_SECONDS), "--no-color",
        ]  # fmt: skip
        made = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(_ROOT)}, capture_output=True, text=True, check=False, timeout=240
        )
    assert made.returncode == 0, made.stdout[-8_000:] + made.stderr[-2_000:]
    assert " passed" in made.stdout
