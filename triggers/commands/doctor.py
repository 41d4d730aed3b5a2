"""`triggers doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from runtime.settings import Settings
from triggers.commands.output import Json, explained
from triggers.doctor import findings
from triggers.doctor.checks import CHECKS
from triggers.doctor.findings import Finding


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the command, too.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these checks: {', '.join(CHECKS)}.")] = None,
    json: Json = False,
) -> None:
    """Look at servers, topics, groups, clocks, sockets and settings. Changes nothing.

    Exit status 1 if something fails; with --strict also for a warning.
    """
    with explained():
        settings = Settings()
        wanted = set(only or CHECKS)
        if unknown := wanted - set(CHECKS):
            raise ValueError(f"there is no check {', '.join(sorted(unknown))}: there are {', '.join(CHECKS)}")
        checks = {name: check for name, check in CHECKS.items() if name in wanted}
        found = findings.run(settings, checks, settings.operating.check_timeout_s)
    severity = findings.worst(found)
    if json:
        print(msgspec.json.encode({"severity": severity, "findings": [one._asdict() for one in found]}).decode())
    else:
        for line in lines(found):
            print(line)
    if severity == "fail" or (strict and severity == "warn"):
        raise typer.Exit(1)


def lines(found: list[Finding]) -> list[str]:
    """For people: a line a finding, what to do below it; then how many of each."""
    width = max((len(one.check) for one in found), default=0)
    made = []
    for one in found:
        made.append(f"{one.severity:<4}  {one.check:<{width}}  {one.what}")
        if one.do:
            made.append(f"{'':<4}  {'':<{width}}  → {one.do}")
    counts = [f"{sum(one.severity == severity for one in found)} {severity}" for severity in findings.SEVERITIES]
    return [*made, ", ".join(counts)]


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)
