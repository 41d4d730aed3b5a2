"""A coverage-guided fuzzer of the strict reader, by hand: `make fuzz`, or `make fuzz SECONDS=600`.

Arguments go to libFuzzer. What it finds it leaves in the folder named by `-artifact_prefix`; new inputs in the first folder given.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["schemas.strict", "ingest.accept", "ingest.cloudevents", "tests.plain_json", "tests.strictness"]):
    from tests.strictness import judge


def one(data: bytes) -> None:
    judge(data)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
