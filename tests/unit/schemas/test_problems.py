from __future__ import annotations

from schemas.problem_examples import EXAMPLES, example
from schemas.problems import REGISTRY


def test_every_problem_has_an_example_that_says_what_to_do() -> None:
    assert set(REGISTRY) <= set(EXAMPLES)
    for problem in REGISTRY.values():
        document = example(problem)
        assert document["type"].endswith(f":{problem.slug}")
        assert document["status"] == problem.status
        assert document["detail"].endswith((".", "…"))
