"""Which failures are our own: the network of this machine, its files, its resolver. They cost no attempt and tell nothing of an endpoint.
Pure."""

from __future__ import annotations

import errno
import socket
from typing import Final

#: No route or interface, no file descriptors, no local address or buffer left. A host that is down (EHOSTUNREACH) is the receiver's.
_ERRNOS: Final = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EPERM}
)
#: The resolver could not be asked (getaddrinfo(3)); a name that does not exist is `EAI_NONAME`.
_RESOLVER: Final = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})


def is_ours(error: BaseException) -> bool:
    """Looks through what a library wrapped around it: causes, contexts, and the `os_error` of aiohttp's connector errors."""
    seen: set[int] = set()
    left: list[BaseException] = [error]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, socket.gaierror):
            if one.errno in _RESOLVER:
                return True
        elif isinstance(one, OSError) and one.errno in _ERRNOS:
            return True
        left += [inner for inner in (one.__cause__, one.__context__, getattr(one, "os_error", None)) if isinstance(inner, BaseException)]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
    return False
