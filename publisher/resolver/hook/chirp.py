"""Attributes that stay in the job ad of the access point; the hook's own answer changes only the starter's copy of the job ad.

HTCondor's starter accepts such updates on a loopback port, from jobs and hooks alike (``condor_chirp set_job_attr_delayed``;
HTCondor's manual, "Chirp"). The attributes must have a name that begins with ``Chirp``; ``condor_q`` and ``condor_history`` show
them, and so does the job's log if the submit file asks for them. The file that ``_CONDOR_CHIRP_CONFIG`` names contains host, port
and cookie; a site that has disabled chirp has no such file.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "Chirp"
_TIMEOUT = 1.0  # seconds for each step; all of them together normally take a millisecond
_MAX_BYTES = 1000


def set_attributes(config: str, attributes: Mapping[str, str]) -> None:
    """Set string attributes in the ad of the job that this hook runs for.

    Args:
        config: path of the file with host, port and cookie.
        attributes: name without :data:`PREFIX` -> value. Values with blanks, quotes or backslashes are left out: old and new
            versions of HTCondor have no common spelling for them.

    Raises:
        OSError: the starter does not answer, or refuses.
        ValueError: the file has another format.
    """
    with open(config, encoding="ascii") as file:
        host, port, cookie = file.read(_MAX_BYTES).split()
    lines = [f"cookie {cookie}"]
    lines += [f'set_job_attr_delayed {PREFIX}{name} "{value}"' for name, value in attributes.items() if _is_plain(value)]
    answers = _send(host, int(port), lines)
    if answers != ["0"] * len(lines):
        raise OSError(f"the starter answers {' '.join(answers) or 'nothing'}")


def _send(host: str, port: int, lines: list[str]) -> list[str]:
    """Send lines and return the starter's answers; fewer than lines if it closes the connection."""
    import _socket  # noqa: PLC0415 - the core of socket: importing socket takes three milliseconds

    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect((host, port))
        connection.sendall("".join(f"{line}\n" for line in lines).encode("ascii"))
        answer = b""
        while answer.count(b"\n") < len(lines):
            chunk = connection.recv(_MAX_BYTES)
            if not chunk:
                break
            answer += chunk
        return answer.decode("ascii", "replace").split()
    finally:
        connection.close()


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and not set(value) & set(" \"'\\")
