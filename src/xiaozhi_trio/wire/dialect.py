"""What a peer speaks that does not begin with an HTTP request: told from its first bytes."""

from __future__ import annotations

import re
from typing import Final

import attrs


@attrs.frozen
class Dialect:
    """A way to talk to us that cannot work."""

    name: str
    reason: str
    """A stable word for programs and counters."""
    explanation: str
    """What went wrong, for the person who reads the log."""
    fix: str
    """What to change; for scanners, that there is nothing to do."""


_SCANNER: Final = "nothing to do: somebody scans your ports; keep the port off the internet"

TLS: Final = Dialect(
    "TLS",
    "tls_on_plain_port",
    "wss:// used on a ws:// port",
    "use ws:// in the device's address, or set [server] tls_certificate and tls_key",
)
TLS_WITHOUT_CERTIFICATE: Final = Dialect(
    "TLS",
    "tls_on_plain_port",
    "https:// used on an http:// port",
    "use http:// in the OTA address, or put a reverse proxy with a certificate in front of the "
    "HTTP port",
)
"""What `TLS` means on a port that has no TLS to switch on."""
HTTP_2: Final = Dialect(
    "HTTP/2 without TLS",
    "http2_on_http1_port",
    "HTTP/2 used on an HTTP/1.1 port",
    "let the proxy or client use HTTP/1.1 towards this port",
)
PROXY_PROTOCOL: Final = Dialect(
    "PROXY protocol",
    "proxy_header",
    "PROXY header from a machine that is not trusted",
    "name the load balancer's address in [server] trusted_proxies, or switch the PROXY protocol "
    "(send-proxy, proxy_protocol on) off in it",
)
RDP: Final = Dialect("RDP", "rdp_scanner", "remote desktop scanner", _SCANNER)
SMB: Final = Dialect("SMB", "smb_scanner", "Windows file sharing scanner", _SCANNER)
SSH: Final = Dialect("SSH", "ssh_client", "an SSH client", _SCANNER)
MQTT: Final = Dialect(
    "MQTT",
    "mqtt_client",
    "an MQTT client",
    "this server speaks WebSocket only: remove the mqtt settings from the device's OTA",
)
UNKNOWN: Final = Dialect("unknown bytes", "not_http", "not an HTTP request", _SCANNER)

TELLING_BYTES: Final = 16
"""So many first bytes tell all of these apart."""

_HTTP_SO_FAR: Final = re.compile(rb"(?!PRI |PROXY )[A-Za-z]{1,20}(?: |\Z)")
_DIALECTS: Final = (
    (re.compile(rb"\x16\x03[\x00-\x04]"), TLS),
    (re.compile(rb"PRI \* HTTP/2"), HTTP_2),
    (re.compile(rb"PROXY |\r\n\r\n\x00\r\nQUIT\n"), PROXY_PROTOCOL),
    (re.compile(rb"\x03\x00..[\x02-\xff]\xe0", re.DOTALL), RDP),
    (re.compile(rb"\x00...[\xfe\xff]SMB", re.DOTALL), SMB),
    (re.compile(rb"SSH-"), SSH),
    (re.compile(rb"\x10.{1,4}\x00(?:\x04MQTT|\x06MQIsdp)", re.DOTALL), MQTT),
)


def might_be_http(received: bytes) -> bool:
    """Whether what has come so far can become an HTTP/1 request."""
    text = received.lstrip(b"\r\n")
    return not text or _HTTP_SO_FAR.match(text) is not None


def recognise(received: bytes) -> Dialect:
    """The likeliest dialect of these first bytes, `UNKNOWN` where none fits."""
    return next((dialect for shape, dialect in _DIALECTS if shape.match(received)), UNKNOWN)
