"""The model of all settings.

Every key of publisher.yaml is also a flag (``--batch-time``) and an environment variable (``PUBLISHER_BATCH_TIME``).
:func:`publisher.settings.sources.load_settings` reads them, :func:`settings_table` documents them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from publisher.errors import UsageError
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.settings import kinds, targets
from publisher.settings.targets import PublishTargets

if TYPE_CHECKING:
    from publisher.signing.key_source import KeySource

ROOT_STATE = "/var/lib/ospool-image-publisher"
"""State directory of runs as root."""


class PublisherSettings(BaseModel):
    """All settings of the publisher: sizes are bytes, times are seconds, paths are absolute; None is unset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: kinds.FilePath = Field(default=Path("images.yaml"), description="the image list")
    repository: kinds.RepositoryTarget | None = Field(
        default=None, description="target for sandboxes: a CVMFS repository that this host publishes, or a directory"
    )
    origin: kinds.OriginTarget | None = Field(
        default=None, description="target for SIFs: a place in a federation, or a directory"
    )
    further_origins: kinds.OriginTargets = Field(
        default=(), description="further targets for SIFs, which follow `origin`; one that fails is reported and fails no run"
    )
    federation: kinds.Host = Field(default="osg-htc.org", description="the federation that `osdf:///PREFIX` stands for")
    origin_hosts: kinds.Hosts = Field(
        default=frozenset(), description="origins to which a director may redirect requests with tokens; unset: any"
    )
    origin_authority: kinds.FilePath | None = Field(
        default=None, description="PEM file of a private CA that signs the certificates of federation and origin"
    )
    slowest_transfer: kinds.Rate = Field(
        default=1_000_000, description="an upload to the origin, or reading it back, fails if it is slower"
    )
    origin_checksums: bool = Field(
        default=False, description="also ask the origin for its checksum of a SIF; not with XRootD 5.5, see osdf.md"
    )
    uploads: Literal["builtin", "pelican"] = Field(
        default="builtin", description="what uploads SIFs to a federation: this program itself, or the `pelican` command"
    )
    token_file: kinds.FilePath | None = Field(
        default=None,
        description="file with the token for the origin, read again for each request; unset: BEARER_TOKEN or BEARER_TOKEN_FILE",
    )
    removal_token_file: kinds.FilePath | None = Field(
        default=None, description="file with a token that may also delete objects; unset: the token for uploads"
    )
    token_key: kinds.FilePath | None = Field(
        default=None, description="private key of the token issuer; with it, tokens are made here, one for each request"
    )
    token_issuer: kinds.Url | None = Field(default=None, description="URL of the issuer that has token_key")
    token_key_id: str | None = Field(default=None, description="name of token_key in the issuer's key set; unset: its thumbprint")
    token_base: str | None = Field(
        default=None, description="path that the issuer's scopes are relative to; unset: the path that the director gives, or /"
    )
    state: kinds.DirectoryPath = Field(
        default=Path(ROOT_STATE),
        description="cached layers, unfinished builds and the lock; users other than root: below XDG_STATE_HOME",
    )
    key: kinds.PrivateKey | None = Field(
        default=None, description="private key that signs the manifest: in a file, in a token, or behind a program; see keys.md"
    )
    cosigning_keys: kinds.PrivateKeys = Field(
        default=(), description="further private keys that sign it, if the keys document asks for several signatures"
    )
    keys_document: kinds.FilePath | None = Field(
        default=None, description="keys document that the root key signed; it is published with the manifest, see keys.md"
    )
    root_keys: kinds.FilePaths = Field(
        default=(), description="public root keys of the execution points; one of them must have signed keys_document"
    )
    trusted_keys: kinds.FilePaths = Field(
        default=(), description="further public keys that may have signed the published manifest, during a key rotation"
    )
    operator: str | None = Field(
        default=None, description="who publishes, for the publication log, which everybody can read; unset: the account and host"
    )
    witness: kinds.WitnessTarget | None = Field(
        default=None,
        description="second place for the publication log and every index: a git repository or an origin, see log.md",
    )
    insecure_registries: kinds.Hosts = Field(
        default=frozenset(), alias="insecure_registry", description="registries that are asked over plain HTTP"
    )
    allowed_networks: kinds.Networks = Field(
        default=(),
        description="networks without public addresses to which requests may be sent, such as `10.1.0.0/16`; not needed for "
        "insecure registries, mirrors, the host in `origin`, `origin_hosts` and proxies",
    )
    private_images: Literal["refused", "allowed"] = Field(
        default="refused",
        description="whether images that cannot be pulled anonymously are published, if their entries say `private: allowed`",
    )
    sigstore_root: kinds.FilePath | None = Field(
        default=None,
        description="`trusted_root.json` of the Sigstore instance for entries with `signed_by: identity`;"
        " unset: the public instance, which is asked over the network",
    )
    removal_grace: kinds.Grace = Field(
        default=14 * 86400, description="time that a name stays usable after it left the list or its registry"
    )
    superseded_grace: kinds.Grace = Field(
        default=14 * 86400,
        description="time that data stays after it was superseded or its name ended; must be longer than any job",
    )
    sync_interval: kinds.Seconds | None = Field(
        default=None, description="time between two syncs as the timer or cron job runs them; `publisher status` watches it"
    )
    page: kinds.PagePlace = Field(
        default=targets.PAGE_IN_ORIGIN,
        description="where each sync writes the status page: `origin` (its directory `page/`), a directory, or `none`",
    )
    metrics_file: kinds.FilePath | None = Field(
        default=None, description="file that every sync writes metrics to, for node_exporter's textfile collector (`*.prom`)"
    )
    mail_command: kinds.CommandLine | None = Field(
        default=None,
        description="program that sends notices as mail, which it gets on its standard input, such as `/usr/sbin/sendmail -t -i`;"
        " unset: no mail",
    )
    mail_from: kinds.Address | None = Field(default=None, description="sender of notices; unset: what mail_command makes of it")
    notice_mail: kinds.Addresses = Field(default=(), description="addresses of the operators, who get a mail about every change")
    notice_owners: kinds.OwnerAddresses = Field(
        default={}, description="addresses of owners that the list names otherwise than by an address"
    )
    webhooks: kinds.Webhooks = Field(
        default=(),
        description="where notices about every change are posted to, as JSON or in the form of Slack; see monitoring.md",
    )
    notice_quiet: kinds.Seconds = Field(
        default=6 * 3600,
        description="quiet period: time after a notice in which no other is sent about the same image, and before a failure is"
        " told that is expected to pass",
    )
    caches: kinds.Hosts = Field(
        default=frozenset(),
        description="caches of the federation that are asked to fetch popular SIFs after a publish, and to evict blocked ones",
    )
    prestaged_per_run: kinds.Count = Field(default=20, description="largest number of SIFs that a run asks the caches to fetch")
    watch_listen: kinds.Host = Field(
        default="127.0.0.1:9741", description="where `publisher watch` listens for push events of registries"
    )
    watch_secrets: kinds.FilePath | None = Field(
        default=None, description="file with the secrets that authenticate push events, one in each line"
    )
    watch_rate: kinds.Count = Field(default=600, description="largest number of push events per minute")
    removals_per_run: kinds.Count = Field(
        default=50, description="largest number of builds, and of objects of the origin, that one run removes"
    )
    removed_size_per_run: kinds.Size = Field(default=500 * 10**9, description="largest total size of what one run removes")
    audited_per_run: kinds.Count = Field(
        default=200, description="number of SIFs that one run looks for in the origin, and restores if they are lost"
    )
    chunk_tables_per_run: kinds.Count = Field(
        default=20, description="number of SIFs without a chunk table that one run reads in the origin to make theirs"
    )
    adopt_sifs_per_run: kinds.Count = Field(
        default=20, description="number of adopted images that get their SIF in one run; see `publisher adopt`"
    )
    mirrors: kinds.Mirrors = Field(default={}, description="mirrors that are asked before a registry")
    mirror_tags: bool = Field(default=True, description="also ask mirrors which digest a tag has, not only for content by digest")
    registry_concurrency: kinds.Count = Field(default=64, description="largest number of requests to one registry at a time")
    rates: kinds.RequestRates = Field(default={}, description="largest number of requests per second to a registry or mirror")
    longest_pause: kinds.Seconds = Field(
        default=60,
        description="longest wait that a registry may demand (Retry-After, rate limit); after more, images wait for a later run",
    )
    quotas: kinds.Quotas = Field(
        default={}, description="limits for owners of entries; `default` and `nobody` are owners too; only in publisher.yaml"
    )
    repository_name: kinds.RepositoryName | None = Field(
        default=None, description="the repository's name in the manifest; unset: the repository's own"
    )
    name_template: Literal["{repository}:{tag}", "{registry}/{repository}:{tag}"] = Field(
        default="{repository}:{tag}", description="CVMFS name of an image; write it in quotes"
    )
    compression: Literal["zstd", "gzip"] = Field(
        default="zstd", description="compression of SIFs; gzip if execution points have old kernels"
    )
    sif_zstd_level: kinds.ZstdLevel = Field(
        default=3, description="level of the compression of SIFs with zstd, 1 to 22; docs/sif-sizes.md says what it costs"
    )
    accepted_tools: kinds.ToolVersions = Field(
        default=(),
        description="versions of programs that images may be built with, such as `zstd 1.5.4`; a run stops if a named"
        " program has another version. Programs that are not named may have any; see fidelity.md",
    )
    test_account: kinds.Account = Field(
        default="image-test",
        description="unprivileged account that runs the test of a finished SIF, when this program runs as root",
    )
    build_account: kinds.Account | None = Field(
        default=None,
        description="unprivileged account that runs mksquashfs, unsquashfs (for SIFs of the list) and Apptainer's build, when"
        " this program runs as root; unset: `image-build` if there is one, otherwise test_account",
    )
    builder: Literal["local", "condor"] = Field(
        default="local", description="where SIFs are built: on this host, or by jobs of an HTCondor pool; see pool.md"
    )
    condor_account: kinds.Account | None = Field(
        default=None,
        description="unprivileged account that build jobs belong to, when this program runs as root; unset: build_account's",
    )
    condor_directory: kinds.DirectoryPath | None = Field(
        default=None, description="directory of the build jobs' files, which condor_account can enter; unset: `jobs` in state"
    )
    condor_jobs: kinds.Count = Field(default=100, description="largest number of build jobs in the queue at a time")
    condor_requirements: kinds.Expression | None = Field(
        default=None, description="further requirements on the machines that build, such as `HasSingularity`"
    )
    condor_python: kinds.Program = Field(
        default="python3", description="the Python on these machines; it has the minor version of this program's"
    )
    condor_wait: kinds.Seconds = Field(default=6 * 3600, description="longest wait of a build job for its first start")
    condor_sample: kinds.Share = Field(
        default=0.05, description="share of the SIFs from the pool that are built again on this host and compared"
    )
    condor_token_command: kinds.Program | None = Field(
        default=None,
        description="program that issues the tokens with which build jobs upload SIFs into the origin; unset: token_key does,"
        " and without it SIFs come back by file transfer; see pool.md",
    )
    scanner: kinds.Program | None = Field(
        default=None, description="vulnerability scanner that `publisher scan` runs: path or name of trivy or grype"
    )
    scanner_home: kinds.DirectoryPath | None = Field(
        default=None,
        description="home directory of the scanner, for its database; where this program runs as root, test_account must own it",
    )
    scans_per_run: kinds.Count = Field(default=20, description="largest number of images that one `publisher scan` scans")
    blob_cache: kinds.Size = Field(default=100 * 10**9, description="size of the layers that are kept for later images")
    batch_size: kinds.Size = Field(default=50 * 10**9, description="largest size of the sandboxes in one transaction")
    batch_time: kinds.Seconds = Field(default=1800, description="a transaction is published after this time at the latest")
    max_unpacked_size: kinds.Size = Field(
        default=DEFAULT_LIMITS.unpacked_size, description="largest total size of the files of one image"
    )
    max_entries: kinds.Count = Field(
        default=DEFAULT_LIMITS.entries, description="largest number of files, directories and links in one image"
    )
    max_path_length: kinds.Count = Field(default=DEFAULT_LIMITS.path_length, description="longest path within an image, in bytes")
    request_deadline: kinds.Seconds = Field(
        default=60, description="longest time to wait for a response of a registry or of the origin"
    )
    slowest_fetch: kinds.Rate = Field(default=100_000, description="the transfer of a layer fails if it is slower")
    builds: kinds.Count | None = Field(
        default=None,
        description="number of images that are built at a time; unset: as many as this host has cores, memory and disk for",
    )
    build_deadline: kinds.Seconds = Field(default=4 * 3600, description="longest time for flattening and squashing one image")
    test_deadline: kinds.Seconds = Field(default=120, description="longest time for the test run of one image")
    test_memory: kinds.Size = Field(
        default=512 << 20, description="largest memory of the test run of one image; Apptainer itself needs 256 MiB"
    )

    @property
    def compression_level(self) -> int | None:
        """Return the level of the compression of SIFs; None for the usual one of a compression other than zstd."""
        return self.sif_zstd_level if self.compression == "zstd" else None

    @property
    def limits(self) -> LayerLimits:
        """Return the limits on the content of one image."""
        return LayerLimits(unpacked_size=self.max_unpacked_size, entries=self.max_entries, path_length=self.max_path_length)

    def signing_key(self) -> KeySource:
        """Return the private key that signs the manifest.

        Raises:
            UsageError: the setting ``key`` is missing.
        """
        if self.key is None:
            raise UsageError("no key is given to sign the manifest with", hint="give --key FILE; publisher keys new makes one")
        return self.key

    def targets(self) -> PublishTargets:
        """Return where to publish.

        Raises:
            UsageError: the setting ``repository`` or ``origin`` is missing; they have no default.
        """
        if self.repository is None or self.origin is None:
            given = {"--repository DIR": self.repository, "--origin DIR": self.origin}
            missing = " and ".join(flag for flag, path in given.items() if path is None)
            raise UsageError("no place to publish is given", hint=f"give {missing}, or their keys in publisher.yaml")
        return PublishTargets(self.repository, self.origin)


def settings_table() -> str:
    """Return all settings as a Markdown table, for the documentation."""
    rows = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, field in PublisherSettings.model_fields.items():
        kind, default = kinds.kind_of(field), default_text(name)
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{field.alias or name}` | {kind.description} | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def default_text(name: str) -> str:
    """Return the default of a field as it could be written in publisher.yaml; empty if the setting is unset by default."""
    field = PublisherSettings.model_fields[name]
    unset = field.default is None or field.default in ((), frozenset(), {})
    return "" if unset else kinds.kind_of(field).format(field.default)
