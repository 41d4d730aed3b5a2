"""What a request's head may be, beyond the grammar: one host, a path we can serve. Pure; every refusal is a problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from schemas import problems
from schemas.problems import ProblemError

#: RFC 9110 section 7.2: uri-host [":" port].
_HOST: Final = re.compile(rb"\A(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?\Z")
_ABSOLUTE: Final = re.compile(rb"\A(?i:https?)://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?\Z")


class Refused(Exception):
    """This request, and with it the connection, ends here. `reason` is for the log and holds nothing the caller sent."""

    def __init__(self, error: ProblemError, reason: str) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason


def check_host(version: str, hosts: int, host: bytes) -> None:
    """`hosts` Host headers came, `host` is the last. Raises `Refused` as RFC 9112 section 3.2 asks."""
    if version not in ("1.1", "1.0"):
        raise malformed("This is neither HTTP/1.1 nor HTTP/1.0.")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise malformed("A request has one Host header.")
    if hosts and not _HOST.match(host):
        raise malformed("The Host header is not a host.")


def split_target(target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """(path, query) of a request target, both as sent. Raises `Refused`.

    The absolute form is taken where it names the host that Host names, as RFC 9112 section 3.2.2 has every caller send it. One that
    contradicts its Host is asking a proxy, which this is not; authority form (CONNECT) and asterisk form (OPTIONS) name nothing here.
    """
    if not target.startswith(b"/"):
        found = _ABSOLUTE.match(target)
        if found is None:
            raise malformed("The request target has to be a path.")
        if host is not None and found[1].lower() != host.lower():
            raise malformed("The request target and the Host header name different hosts.")
        target = (found[2] or b"/") + (found[3] or b"")
    elif b"#" in target:
        raise malformed("A request target has no fragment.")
    path, _, query = target.partition(b"?")
    return path, query


def malformed(detail: str) -> Refused:
    return Refused(ProblemError(problems.MALFORMED_REQUEST, detail), detail)


def head_too_large(bytes_max: int) -> Refused:
    detail = f"Path, query and headers may have {bytes_max} bytes together. Send less in them."
    return Refused(ProblemError(problems.HEADERS_TOO_LARGE, detail), "large headers")


def too_many_headers(headers_max: int) -> Refused:
    return Refused(ProblemError(problems.HEADERS_TOO_LARGE, f"At most {headers_max} headers are read. Send fewer."), "many headers")


def target_too_long(bytes_max: int) -> Refused:
    return Refused(ProblemError(problems.URI_TOO_LONG, f"Path and query may have {bytes_max} bytes together."), "long target")


def too_slow(part: str) -> Refused:
    return Refused(ProblemError(problems.REQUEST_TIMEOUT, f"The {part} did not arrive in time. Send the request again."), f"slow {part}")


def overloaded(why: str, scope: Mapping[str, Any] | None) -> Refused:
    """`scope` is the request's; None: nothing was read yet. Where an event may be meant, the answer says that it was not appended."""
    appends = scope is None or (scope["method"] == "POST" and scope["path"].startswith("/events"))
    members = {"outcome": "not_appended"} if appends else None
    return Refused(ProblemError(problems.OVERLOADED, f"{why} Try again in a moment.", headers={"Retry-After": "1"}, members=members), why)
