"""A fake of the command ``pelican object put``; the real one is not packaged.

It asks the federation's director for the server and stores the object there with curl. Like the real one it refuses to overwrite,
and exits with 1 for permanent failures and 11 for transient ones. The first argument is a log file, to which it appends its
arguments and the names of its environment variables. A file with the suffix ``.fault`` beside the log makes it fail once; one
with the suffix ``.damage`` is stored instead of the object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse

FAILED, RETRYABLE = 1, 11


def main(log: str, command: str, action: str, *arguments: str) -> int:
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps({"arguments": [command, action, *arguments], "environment": sorted(os.environ)}) + "\n")
    if (command, action, len(arguments)) != ("object", "put", 4) or arguments[0] != "--token":
        print("unknown command", file=sys.stderr)
        return FAILED
    if os.path.exists(fault := f"{log}.fault"):
        os.unlink(fault)
        print("Error code 3005: connection reset", file=sys.stderr)
        return RETRYABLE
    source, url = arguments[2:]
    with open(arguments[1], encoding="ascii") as file:
        shown = ("-H", f"Authorization: Bearer {file.read()}")
    target = directed(urllib.parse.urlsplit(url))
    if curl("-o", "/dev/null", "-I", "-w", "%{http_code}", *shown, target) == "200":
        print("Error code 5012: file already exists", file=sys.stderr)
        return FAILED
    if os.path.exists(f"{log}.damage"):
        source = f"{log}.damage"
    status = curl("-o", "/dev/null", "-w", "%{http_code}", *shown, "-T", source, target)
    if status not in ("200", "201"):
        print(f"Error code 4000: the origin answers {status}", file=sys.stderr)
        return FAILED
    return 0


def directed(place: urllib.parse.SplitResult) -> str:
    """Return the URL at which the director wants the object to be stored."""
    configuration = json.loads(curl(f"https://{place.netloc}/.well-known/pelican-configuration"))
    answer = curl("-X", "PUT", "-D", "-", "-H", "Content-Length: 0", f"{configuration['director_endpoint']}{place.path}")
    return next(line.split(": ", 1)[1].strip() for line in answer.splitlines() if line.lower().startswith("location:"))


def curl(*arguments: str) -> str:
    argv = ["curl", "-sS", "--cacert", os.environ["SSL_CERT_FILE"], *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
