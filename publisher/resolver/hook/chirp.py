"""Attributes that a job keeps: what the hook answers itself reaches only the starter's copy of the job's ad.

HTCondor's starter takes updates for the job's ad in the access point's queue on a loopback port, for jobs and hooks alike
(``condor_chirp set_job_attr_delayed``; HTCondor's manual, "Chirp"). They need a name that begins with ``Chirp``, and are in
``condor_q``, ``condor_history`` and the job's log where the submit file asks for them. The file that ``_CONDOR_CHIRP_CONFIG``
names has host, port and cookie; where a site has switched this off, there is none.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "Chirp"
_PATIENCE = 1.0  # seconds for each step; all of them together take a millisecond
_MOST_BYTES = 1000


def tell(config: str, attributes: Mapping[str, str]) -> None:
    """Put strings into the ad of the job that this hook runs for.

    Args:
        config: path of the file with host, port and cookie.
        attributes: name, to which ``Chirp`` is added -> value. Values with blanks, quotes or backslashes are left out: they have
            no spelling here that old and new HTCondors share.

    Raises:
        OSError: the starter does not answer, or refuses.
        ValueError: the file is not what it should be.
    """
    with open(config, encoding="ascii") as file:
        host, port, cookie = file.read(_MOST_BYTES).split()
    lines = [f"cookie {cookie}"]
    lines += [f'set_job_attr_delayed {PREFIX}{name} "{value}"' for name, value in attributes.items() if _is_plain(value)]
    answers = _answers(host, int(port), lines)
    if answers != ["0"] * len(lines):
        raise OSError(f"the starter answers {' '.join(answers) or 'nothing'}")


def _answers(host: str, port: int, lines: list[str]) -> list[str]:
    """What is answered to each line, as much of it as comes."""
    import _socket  # noqa: PLC0415 - what socket is made of: importing that takes three milliseconds, this none

    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect((host, port))
        connection.sendall("".join(f"{line}\n" for line in lines).encode("ascii"))
        answer = b""
        while answer.count(b"\n") < len(lines):
            chunk = connection.recv(_MOST_BYTES)
            if not chunk:
                break
            answer += chunk
        return answer.decode("ascii", "replace").split()
    finally:
        connection.close()


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and not set(value) & set(" \"'\\")
