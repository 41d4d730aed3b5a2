"""RELIABILITY 4.6 and F39 with a real name server and a canary on every forbidden address that a route can lead to (`room`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.contract.egress import room
from tests.contract.egress.outside import PUBLIC, PUBLIC_V6, ZONE
from tests.contract.egress.room import NAMES, Report
from tests.unit.access.test_egress import FORBIDDEN

_ROOM = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_ROOM, *command], check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def report() -> Report:
    if any(shutil.which(command) is None for command in ("unshare", "nsenter", "ip", "mount")):
        pytest.skip("needs Linux with util-linux and iproute2")
    tried = run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "outer")
    if tried.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    ran = run(sys.executable, "-m", room.__name__)
    assert ran.returncode == 0, ran.stderr
    made: Report = json.loads(ran.stdout.splitlines()[-1])
    return made


def test_the_canaries_work_and_hear_nothing(report: Report) -> None:
    """All but multicast, broadcast and addresses that need a zone can be reached by who does not ask the guard."""
    unreachable = set(FORBIDDEN) - set(report["reachable"])
    assert unreachable == {"224.0.0.1", "239.255.255.255", "255.255.255.255", "fe80::1", "febf::1", "ff02::1", "ff0e::1"}
    assert report["here"] == {}
    assert set(report["outside"]) <= {*ZONE["many"], PUBLIC_V6}


@pytest.mark.parametrize("address", FORBIDDEN)
def test_a_forbidden_address_is_refused_by_itself_and_behind_a_name(address: str, report: Report) -> None:
    assert report["results"][f"literal {address}"][:2] == [None, "egress"]
    assert report["results"][f"name of {address}"][:2] == [None, "egress"]


@pytest.mark.parametrize("name", ["good", "good6", "many"])
def test_a_public_name_is_delivered_to_through_the_same_resolver(name: str, report: Report) -> None:
    assert report["results"][name][:2] == [200, None]


@pytest.mark.parametrize(
    "name",
    ["private", "mixed", "mixed6", "private6", "mapped", "translated", "many-bad", "127.0.0.1.nip", "own", "alias", "metadata"],
)
def test_a_name_with_any_forbidden_address_is_refused(name: str, report: Report) -> None:
    assert report["results"][name][:2] == [None, "egress"]


def test_a_name_that_is_bound_again_is_delivered_to_only_while_it_is_public(report: Report) -> None:
    assert [tried[:2] for tried in report["rebind"]] == [[200, None], [None, "egress"], [None, "egress"]]
    assert report["outside"][PUBLIC] + report["outside"].get(PUBLIC_V6, 0) >= 2


def test_a_redirect_into_the_network_is_a_failure(report: Report) -> None:
    assert report["results"]["redirect"][:2] == [307, "status"]


@pytest.mark.parametrize(("name", "expected"), [("nowhere", "dns"), ("loop", "local"), ("servfail", "local"), ("silent", "local")])
def test_a_name_without_an_answer_is_told_within_its_budget(name: str, expected: str, report: Report) -> None:
    """`local` where it may be our name server that fails: delivery decides what that costs by whether it reaches others."""
    status, error, took_s = report["results"][name]
    assert (status, error) == (None, expected)
    assert isinstance(took_s, float)
    assert took_s < 3.0  # the budget is 1.5 s in the room


def test_every_name_of_the_room_was_tried(report: Report) -> None:
    assert set(NAMES) <= report["results"].keys()
