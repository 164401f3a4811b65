"""The trust root of the public Sigstore instance, fetched and verified by TUF, The Update Framework.

sigstore's own client of TUF makes its connections itself. This one asks through :mod:`publisher.net`, which refuses addresses
that are not public, and keeps its files where sigstore's does.
"""

from __future__ import annotations

import importlib.resources
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.net.small_files import SmallFiles

PUBLIC_INSTANCE = "https://tuf-repo-cdn.sigstore.dev"
_MAX_SIZE = 8 << 20  # bytes; TUF has lower limits for most files
_OK = 200
_NAME = "trusted_root.json"


def fetch_trust_root(
    files: SmallFiles, url: str = PUBLIC_INSTANCE, *, first: Path | None = None, where: Path | None = None
) -> Path:
    """Return the file with the present trust root of a Sigstore instance.

    Args:
        files: fetches files.
        url: the TUF repository of the instance.
        first: a directory with the first ``root.json`` to trust, and perhaps a ``trusted_root.json``, which is not fetched if it
            is the present one; None for what sigstore's package brings along.
        where: the directory for TUF's files; None for that of sigstore's own client.

    Raises:
        UsageError: it cannot be fetched, or is not signed as it should be.
        OSError: its files cannot be written.
        ImportError: sigstore is not installed.
    """
    from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError  # noqa: PLC0415 - few lists need it
    from tuf.ngclient.fetcher import FetcherInterface  # noqa: PLC0415
    from tuf.ngclient.updater import Updater  # noqa: PLC0415

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            status, content = files.get(url, _MAX_SIZE)
            if status != _OK:
                raise DownloadHTTPError(f"{url} is answered with status {status}", status)
            return iter((content,))

    name = urllib.parse.quote(url, safe="")
    brought = importlib.resources.files("sigstore._store") / name if first is None else first
    metadata, targets = _directories(name) if where is None else (where / "metadata", where / "targets")
    targets.mkdir(parents=True, exist_ok=True)
    if not (targets / _NAME).exists() and (brought / _NAME).is_file():
        (targets / _NAME).write_bytes((brought / _NAME).read_bytes())
    try:
        root = (brought / "root.json").read_bytes()
        updater = Updater(str(metadata), url, str(targets), f"{url}/targets/", Fetcher(), bootstrap=root)
        info = updater.get_targetinfo(_NAME)
        if info is None:
            raise UsageError(f"{url} has no {_NAME}")
        return Path(updater.find_cached_target(info) or updater.download_target(info))
    except (DownloadError, RepositoryError) as error:
        raise UsageError(str(error.__cause__ or error)) from error


def _directories(name: str) -> tuple[Path, Path]:
    """Return the directories of metadata and targets that sigstore's own client has for a TUF repository."""
    import platformdirs  # noqa: PLC0415 - comes with sigstore

    data, cache = (
        platformdirs.user_data_path("sigstore-python", "sigstore"),
        platformdirs.user_cache_path("sigstore-python", "sigstore"),
    )
    return data / "tuf" / name, cache / "tuf" / name
