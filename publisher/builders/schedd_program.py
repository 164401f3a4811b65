"""The program that talks to HTCondor's schedd through its Python bindings: a request on standard input, jobs on standard output.

It is a program of its own, because the schedd refuses root and authenticates the user of the process, and because the bindings
have no deadline. It imports nothing of the publisher.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def carry_out(request: dict[str, Any], bindings: Any) -> list[dict[str, object]]:
    """Change the queue and return ads of the jobs that match the constraint, each with the attributes that are defined.

    Args:
        request: ``remove`` (ids of jobs), ``requirements`` (an expression for the jobs that wait, or null), ``submit``
            (descriptions), ``constraint`` and ``attributes``.
        bindings: the module ``htcondor2``.
    """
    schedd = bindings.Schedd()
    if request["remove"]:
        schedd.act(bindings.JobAction.Remove, request["remove"], reason="the publisher does not need this job any more")
    waiting = f"({request['constraint']}) && JobStatus == 1"
    if request["requirements"] is not None and schedd.query(constraint=waiting, projection=["ClusterId"]):  # editing none fails
        schedd.edit(waiting, "Requirements", request["requirements"])
    for description in request["submit"]:
        schedd.submit(bindings.Submit(description), count=1)
    ads = schedd.query(constraint=request["constraint"], projection=request["attributes"])
    return [_plain(ad, request["attributes"]) for ad in ads]


def _plain(ad: Any, attributes: list[str]) -> dict[str, object]:
    """Return the attributes of an ad that are numbers, truth values or texts."""
    values = {name: ad.get(name) for name in attributes}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str) and not _is_undefined(value)}


def _is_undefined(value: object) -> bool:
    return type(value).__module__.startswith("classad")  # classad2.Value.Undefined is a number


def main() -> int:
    """Answer the request on standard input; an error's text goes to standard error."""
    import htcondor2  # noqa: PLC0415 - this program is started where it is installed

    try:
        answer = carry_out(json.load(sys.stdin), htcondor2)
    except (htcondor2.HTCondorException, OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(" ".join(str(error).split()) or type(error).__name__)
        return 1
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
