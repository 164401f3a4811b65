"""The addresses of this host, which no request is sent to unless a test allows it."""

from __future__ import annotations

import ipaddress

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
