"""Who sends a request: the address that limits are counted by.

A proxy on this machine or beside it stands between us and the client; it says in X-Forwarded-For
whom it speaks for. The header of anybody else is the sender's own word and is not read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

HOUSE = ""  # what the page itself asks for: no stranger, so no limit
CLIENT_KEY = "cat.client"  # where the guard notes in a scope who asks

current_client: ContextVar[str] = ContextVar("current_client", default=HOUSE)


def is_near(scope: Mapping[str, Any]) -> bool:
    """Whether the peer of a request has a private address, as a proxy of ours has.

    uvicorn puts the client of a proxy on this very machine in the place of the peer; the port that
    it does not know is 0 then.
    """
    host, port = scope.get("client") or ("", -1)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return port == 0 or address.is_private


def client_of(scope: Mapping[str, Any], headers: Mapping[str, bytes]) -> str:
    """The address of a client, as a text to count by; of IPv6 only its network (/64)."""
    host, _ = scope.get("client") or ("", -1)
    if is_near(scope) and "x-forwarded-for" in headers:  # its last entry is the proxy's own
        host = headers["x-forwarded-for"].decode("latin1").rsplit(",", 1)[-1].strip() or host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:60] or "unknown"
    address = getattr(address, "ipv4_mapped", None) or address  # as a proxy on both may write it
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
