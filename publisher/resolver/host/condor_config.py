"""HTCondor's configuration for an execution point, and for an access point whose jobs name published images. Text only.

It relies on these rules of HTCondor (its manual, "Singularity and Apptainer Support" and "Hooks"; the source of the starter):

- The starter runs a job in a container if the job is of the container universe, or if SINGULARITY_JOB is true for the job *after*
  the hook. The image is the value of SINGULARITY_IMAGE_EXPR; if that is not a string, the job does not start.
- The starter ends as soon as a JOB_EXIT hook has ended, whatever its status, in the middle of the transfer of output: HTCondor
  25.14 then loses every job that transfers files (tested; StarterHookMgr.cpp). So no such hook is configured: a pin ends with its
  starter.
- START decides whether the machine takes a job: MY is the machine, with the attributes of the startd cron, TARGET is the job.
"""

from __future__ import annotations

from publisher.resolver.config.settings import OSPOOL
from publisher.resolver.hook import statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from publisher.resolver.config.settings import ResolverSettings

_EXECUTION_POINT = """\
# Configuration of an execution point that runs published images, for HTCondor 23.2 or later. It was written by
# 'image-resolver condor-config'. Put the changes for your site into a file that is read after this one.

# --- The hook makes the image that a job names available before the job starts, whatever the spelling of the name.
# The keyword is forced: with STARTER_DEFAULT_JOB_HOOK_KEYWORD a job could name another hook and so avoid this one.
STARTER_JOB_HOOK_KEYWORD = {keyword}
{keyword}_HOOK_PREPARE_JOB = {program}
{keyword}_HOOK_PREPARE_JOB_ARGS = prepare-job --config {config} $(IMAGE_RESOLVER_FLAGS)
# More flags for the hook and the cron; 'image-resolver pilot-start' sets the default image here, and what a glidein says.
IMAGE_RESOLVER_FLAGS =

# --- Which jobs run in a container: a job that names an image runs in it, or not at all.
# The hook sets both attributes. A job that has either one runs in a container; if the value is not an image the job fails
# instead of running outside a container. With a default image this applies to every job.
SINGULARITY = {apptainer}
IMAGE_RESOLVER_NAMED = (TARGET.SingularityImage =!= undefined || TARGET.ContainerImage =!= undefined)
IMAGE_RESOLVER_EVERY_JOB = {every_job}
SINGULARITY_JOB = $(IMAGE_RESOLVER_EVERY_JOB) || $(IMAGE_RESOLVER_NAMED)
SINGULARITY_IMAGE_EXPR = string(TARGET.SingularityImage ?: TARGET.ContainerImage)

# --- What containers show of the host besides the image; HTCondor itself leaves out what does not exist.
IMAGE_RESOLVER_BINDS = {binds}
SINGULARITY_BIND_EXPR = "$(IMAGE_RESOLVER_BINDS)"
SINGULARITY_EXTRA_ARGUMENTS = {extra}

# --- Which jobs this machine takes
# It takes no job that names an image if the measurement found that containers do not work here, or if several images in a row
# failed to start and no measurement has succeeded since.
# For {retry} minutes it does not take back a job that failed here because of its image. The job may run elsewhere; here it would
# fail again at once, and would come back again and again. 45: Apptainer's test of the image failed; the hook then gives the job
# the image's other form, so it may come back once. 1007 with this text: the hook answered that it failed. A hook that was
# killed gave no answer.
IMAGE_RESOLVER_IMAGE_FAILED = ((TARGET.VacateReasonCode == 45 && \\
        (TARGET.NumVacatesByReason.SingularityTestFailed ?: 2) > 1) || \\
    (TARGET.VacateReasonCode == 1007 && regexp("PREPARE_JOB.*reported status", TARGET.VacateReason) && \\
        !regexp("reported status {killed}", TARGET.VacateReason)))
IMAGE_RESOLVER_BACK = (splitSlotName(TARGET.LastRemoteHost)[1] == splitSlotName(MY.Name)[1] && \\
    time() - TARGET.LastVacateTime < {seconds} && $(IMAGE_RESOLVER_IMAGE_FAILED))
# It takes no job at all once the setting stop-file has stopped it.
IMAGE_RESOLVER_READY = (MY.ImageResolverUsable =!= false && MY.ImageResolverFailing =!= true)
START = ($(START)) && MY.ImageResolverStopped =!= true && $(IMAGE_RESOLVER_BACK) =!= true && \\
    ($(IMAGE_RESOLVER_READY) || !($(SINGULARITY_JOB)))

# --- Attributes of the machine, measured at its start and every {period} minutes, with the statistics of the cache
HasImageResolver = true
STARTD_ATTRS = $(STARTD_ATTRS) HasImageResolver
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) IMAGE_RESOLVER IMAGE_FAILURES
STARTD_CRON_IMAGE_RESOLVER_EXECUTABLE = {program}
STARTD_CRON_IMAGE_RESOLVER_ARGS = startd-cron --config {config} $(IMAGE_RESOLVER_FLAGS)
STARTD_CRON_IMAGE_RESOLVER_PERIOD = {period}m
STARTD_CRON_IMAGE_RESOLVER_MODE = Periodic
STARTD_CRON_IMAGE_RESOLVER_JOB_LOAD = 0.01
STARTD_CRON_IMAGE_RESOLVER_KILL = true

# --- What jobs reported of images that failed to start, counted every {count_period} seconds; nothing is measured
STARTD_CRON_IMAGE_FAILURES_EXECUTABLE = {program}
STARTD_CRON_IMAGE_FAILURES_ARGS = startd-cron failures --config {config} $(IMAGE_RESOLVER_FLAGS)
STARTD_CRON_IMAGE_FAILURES_PERIOD = {count_period}s
STARTD_CRON_IMAGE_FAILURES_MODE = Periodic
STARTD_CRON_IMAGE_FAILURES_JOB_LOAD = 0.01
STARTD_CRON_IMAGE_FAILURES_KILL = true
"""
_OSPOOL = """\

# --- What the OSPool's scripts did (--profile ospool). Jobs' requirements use these attributes of the machine.
{attributes}
STARTD_ATTRS = $(STARTD_ATTRS) {names}
# Images of others are fetched by their osdf:// (or stash://) and https:// URLs, or pulled from their registry, once for all jobs.
# Variables that a job brings from its access point do not disturb its container.
{keyword}_HOOK_PREPARE_JOB_ARGS = $({keyword}_HOOK_PREPARE_JOB_ARGS) --unknown pull{flags}
# Jobs find their scratch directory at /srv and start there. With SINGULARITY_TARGET_DIR, HTCondor 25 would show its parent there.
# Iwd is the scratch directory of a job whose files are transferred; with any other value there is no /srv.
SINGULARITY_TARGET_DIR =
IMAGE_RESOLVER_SCRATCH = regexp("^/[A-Za-z0-9_./-]+/dir_[0-9]+(/scratch)?$", TARGET.Iwd) =?= true
SINGULARITY_EXTRA_ARGUMENTS = strcat({extra}, \
    ifThenElse($(IMAGE_RESOLVER_SCRATCH), strcat(" --pwd /srv --bind ", TARGET.Iwd, ":/srv"), ""))
"""
_BYPASS = """\

# Jobs of these projects run outside containers if they say container_bypass = true.
IMAGE_RESOLVER_BYPASS = (TARGET.container_bypass =?= true && \\
    stringListIMember(string(TARGET.ProjectName), "{projects}") =?= true)
SINGULARITY_JOB = ($(IMAGE_RESOLVER_EVERY_JOB) || $(IMAGE_RESOLVER_NAMED)) && !$(IMAGE_RESOLVER_BYPASS)
"""
_ACCESS_POINT = """\
# Configuration of an access point whose jobs name images of {name}. It was written by
# 'image-resolver condor-config access-point'.
"""
_ACCESS_POINT_PLACE = """\
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) ImageResolverPlace{number}

# A job that names an image of the repository runs only on machines with the resolver, or with the repository itself.
JOB_TRANSFORM_ImageResolverPlace{number} @=end
    REQUIREMENTS JobUniverse == 5 && regexp("^/cvmfs/{pattern}/", string(SingularityImage ?: ContainerImage))
    SET Requirements ($(MY.Requirements)) && (TARGET.HasImageResolver =?= true || TARGET.{attribute} =?= true)
@end
"""
_ACCESS_POINT_SIFS = """\

JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) ImageResolverSIF

# HTCondor would transfer a published SIF that a container-universe job names by its URL into the job's scratch directory, and
# count it against the job's disk. So the URL is removed from the files to transfer: the execution point has the SIF in its cache
# or fetches it.
JOB_TRANSFORM_ImageResolverSIF @=end
    REQUIREMENTS JobUniverse == 5 && regexp("^({origins})/([^?]*/)?[0-9a-f]{{64}}[.]sif$", string(ContainerImageFullPath))
    EVALSET TransferInput replace("(^|,) *[^,]*/$(MY.ContainerImage)[^,]*", TransferInput, "")
    EVALSET TransferInput replace("^,", TransferInput, "")
    # It is also removed from the common files, to which CONTAINER_IMAGES_COMMON_BY_DEFAULT adds it.
    if defined MY.CommonInputCatalogs
        EVALSET CommonInputCatalogs replace("(^|,) *container_[^,]*", CommonInputCatalogs, "")
    endif
    COPY ContainerImageFullPath ContainerImage
    SET ContainerImageSource "local"
    SET Requirements ($(MY.Requirements)) && TARGET.HasImageResolver =?= true
@end
"""
_OSPOOL_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")
_OSPOOL_ATTRIBUTES = {
    "HAS_SINGULARITY": "(ImageResolverUsable =!= false)",
    "SINGULARITY_CAN_USE_SIF": "(HasSIF =?= true)",
    "OSG_USING_JOB_HOOK": "true",
    "ALLOW_NONCVMFS_IMAGES": "true",
}
_OSPOOL_BYPASS = ("OSG-Staff",)
_RETRY, _PERIOD = 10, 5  # minutes
_COUNT_PERIOD = 30  # seconds


def execution_point(settings: ResolverSettings, *, apptainer: str, binds: Iterable[str], program: str, config: str) -> str:
    """Return the configuration of an execution point, with comments.

    Args:
        settings: of the resolver on that host.
        apptainer: path of the program that HTCondor uses.
        binds: arguments of ``--bind``: absolute paths, with or without ``:destination:options``.
        program: absolute path of this program.
        config: absolute path of the resolver's configuration file.
    """
    text = _EXECUTION_POINT.format(
        keyword=settings.hook_keyword,
        program=program,
        config=config,
        apptainer=apptainer,
        every_job=_boolean(bool(settings.default_image)),
        binds=",".join(binds),
        extra=f'"{settings.extra_arguments}"',
        retry=_RETRY,
        seconds=_RETRY * 60,
        period=_PERIOD,
        count_period=_COUNT_PERIOD,
        killed=statuses.KILLED,
    )
    projects = settings.bypass_projects
    if settings.profile == OSPOOL:
        text += _ospool(settings)
        projects = projects or _OSPOOL_BYPASS
    return text + (_BYPASS.format(projects=",".join(projects)) if projects else "")


def _ospool(settings: ResolverSettings) -> str:
    """Return what the profile ``ospool`` adds; settings of the site replace its own."""
    repositories = [f"HAS_CVMFS_{_identifier(name)}" for name in (settings.name, *settings.aliases)]
    usual = {**_OSPOOL_ATTRIBUTES, **dict.fromkeys(repositories, "(ImageResolverCVMFS =?= true)")}
    attributes = {settings.attributes.get(name, name): value for name, value in usual.items()}
    flags = "" if settings.drop_variables else "".join(f" --drop-variable {name}" for name in _OSPOOL_VARIABLES)
    if not settings.bypass_projects:
        flags += "".join(f" --bypass-project {name}" for name in _OSPOOL_BYPASS)
    return _OSPOOL.format(
        keyword=settings.hook_keyword,
        attributes="\n".join(f"{name} = {value}" for name, value in attributes.items()),
        names=" ".join(attributes),
        flags=flags,
        extra=f'"{settings.extra_arguments}"',
    )


def pilot(
    binds: Iterable[str],
    attributes: Sequence[str],
    flags: Mapping[str, Sequence[str]],
    *,
    has_default: bool,
    pid_namespaces: bool,
) -> str:
    """Return what one pilot adds to :func:`execution_point`; HTCondor must read it after that.

    Args:
        binds: the binds that exist on this host.
        attributes: lines ``Name = value`` for the machine ad.
        flags: setting -> values, for the hook and the cron.
        has_default: whether jobs that name no image get one.
        pid_namespaces: whether jobs' containers may have process IDs of their own.
    """
    lines = [f"IMAGE_RESOLVER_BINDS = {','.join(binds)}", *attributes]
    if flags:
        words = [f"--{name} {value}" for name, values in flags.items() for value in values]
        lines.append(f"IMAGE_RESOLVER_FLAGS = {' '.join(words)}")
    lines.append(f"IMAGE_RESOLVER_EVERY_JOB = {_boolean(has_default)}")
    if not pid_namespaces:
        lines.append("SINGULARITY_USE_PID_NAMESPACES = false")
    names = " ".join(line.partition(" = ")[0] for line in attributes)
    lines.append(f"STARTD_ATTRS = $(STARTD_ATTRS) {names}")
    return "\n".join(lines)


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def access_point(settings: ResolverSettings) -> str:
    """Return the configuration of an access point whose jobs name images of this repository."""
    configuration = _ACCESS_POINT.format(name=settings.name)
    for number, name in enumerate((settings.name, *settings.aliases)):
        attribute = f"HAS_CVMFS_{_identifier(name)}"
        configuration += _ACCESS_POINT_PLACE.format(number=number or "", pattern=_pattern(name), attribute=attribute)
    urls = [address for address in (*settings.origins, *settings.mirrors) if "://" in address]
    origins = [_pattern(url.partition("?")[0].rstrip("/")) for url in urls]
    return configuration + (_ACCESS_POINT_SIFS.format(origins="|".join(origins)) if origins else "")


def _identifier(name: str) -> str:
    """Return the name of a repository as a part of an attribute's name."""
    return "".join(character if character.isalnum() else "_" for character in name)


def _pattern(text: str) -> str:
    """Return a regular expression for a text, without backslashes, since HTCondor's configuration and strings interpret those."""
    return "".join(
        letter if letter.isalnum() or letter in "/:-_~%@" else "." if letter in '^\\"$' else f"[{letter}]" for letter in text
    )
