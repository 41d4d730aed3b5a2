from __future__ import annotations

from pathlib import Path

import pytest

from runtime.sql import load

ROOT = Path(__file__).parents[3]
STATEMENTS = sorted(ROOT.glob("*/sql/*.sql"))


def test_a_statement_is_loaded_as_it_stands() -> None:
    assert load("access", "find_keys") == (ROOT / "access/sql/find_keys.sql").read_bytes()


def test_a_statement_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"sql/no_such_statement\.sql"):
        load("access", "no_such_statement")


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_a_file_holds_one_statement_and_says_first_what_it_is_for(path: Path) -> None:
    first, *rest = path.read_text().strip().splitlines()
    assert first.startswith("-- ")
    assert len(first) > len("-- ")
    code = [line for line in rest if not line.lstrip().startswith("--")]
    assert "".join(code).strip()
    assert ";" not in "\n".join(code).rstrip().removesuffix(";")
