"""HTCondor's configuration for an execution point, and for an access point whose jobs name our images. Pure text.

The rules that it rests on are HTCondor's (its manual, "Singularity and Apptainer Support" and "Hooks"; the starter's source):

- The starter runs a job in a container when the job is of the container universe, or when SINGULARITY_JOB is true of the job
  *after* the hook. The image is what SINGULARITY_IMAGE_EXPR gives; where that is no text, the job does not start.
- The starter ends as soon as a JOB_EXIT hook has, whatever its status, in the middle of the transfer of output: HTCondor 25.14
  then loses every job that transfers files (tried; StarterHookMgr.cpp). So there is none: a pin ends with its starter.
- START decides whether the machine takes a job: MY is the machine, with the startd cron's attributes, TARGET the job.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from publisher.resolver.config.settings import ResolverSettings

_EXECUTION_POINT = """\
# The execution point's side of the image publishing pipeline: written by 'image-resolver condor-config', for HTCondor 23.2 or
# later. Put what differs at your site into a file that is read after this one.

# --- the hook: has the image that a job names, in any spelling, here before the job starts
# The keyword is forced: with STARTER_DEFAULT_JOB_HOOK_KEYWORD a job could name another hook, and do without.
STARTER_JOB_HOOK_KEYWORD = {keyword}
{keyword}_HOOK_PREPARE_JOB = {program}
{keyword}_HOOK_PREPARE_JOB_ARGS = prepare-job --config {config} $(IMAGE_RESOLVER_FLAGS)
# Further flags for the hook; 'image-resolver pilot-start' puts the default image here.
IMAGE_RESOLVER_FLAGS =

# --- which jobs run in a container: whoever names an image runs inside it, or not at all
# The hook answers in both attributes. Whatever stands in one of them makes a container: text that is no image fails, it does
# not fall back to running outside. With a default image that is true of every job.
SINGULARITY = {apptainer}
IMAGE_RESOLVER_NAMED = (TARGET.SingularityImage =!= undefined || TARGET.ContainerImage =!= undefined)
IMAGE_RESOLVER_EVERY_JOB = {every_job}
SINGULARITY_JOB = $(IMAGE_RESOLVER_EVERY_JOB) || $(IMAGE_RESOLVER_NAMED)
SINGULARITY_IMAGE_EXPR = string(TARGET.SingularityImage ?: TARGET.ContainerImage)

# --- what is in the container beside the image; HTCondor itself leaves out what does not exist
IMAGE_RESOLVER_BINDS = {binds}
SINGULARITY_BIND_EXPR = "$(IMAGE_RESOLVER_BINDS)"
SINGULARITY_EXTRA_ARGUMENTS = {extra}

# --- which jobs this machine takes
# None that names an image while containers were measured not to work here. And for {retry} minutes none that came back from here
# because of its image (45: Apptainer's test of it failed; 1007 with this text: our hook did): elsewhere it may run, here it
# would fail again, at once and for ever.
IMAGE_RESOLVER_IMAGE_FAILED = (TARGET.VacateReasonCode == 45 || \\
    (TARGET.VacateReasonCode == 1007 && regexp("PREPARE_JOB", TARGET.VacateReason)))
IMAGE_RESOLVER_BACK = (splitSlotName(TARGET.LastRemoteHost)[1] == splitSlotName(MY.Name)[1] && \\
    time() - TARGET.LastVacateTime < {seconds} && $(IMAGE_RESOLVER_IMAGE_FAILED))
START = ($(START)) && $(IMAGE_RESOLVER_BACK) =!= true && (MY.ImageResolverUsable =!= false || !($(SINGULARITY_JOB)))

# --- what the machine says of itself: measured at its start and every {period} minutes, with the cache's statistics
HasImageResolver = true
STARTD_ATTRS = $(STARTD_ATTRS) HasImageResolver
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) IMAGE_RESOLVER
STARTD_CRON_IMAGE_RESOLVER_EXECUTABLE = {program}
STARTD_CRON_IMAGE_RESOLVER_ARGS = startd-cron --config {config}
STARTD_CRON_IMAGE_RESOLVER_PERIOD = {period}m
STARTD_CRON_IMAGE_RESOLVER_MODE = Periodic
STARTD_CRON_IMAGE_RESOLVER_JOB_LOAD = 0.01
STARTD_CRON_IMAGE_RESOLVER_KILL = true
"""
_ACCESS_POINT = """\
# For an access point whose jobs name images of {name}: written by 'image-resolver condor-config access-point'.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) ImageResolverPlace

# A job that names an image of the repository goes where there is a resolver, or the repository itself.
JOB_TRANSFORM_ImageResolverPlace @=end
    REQUIREMENTS JobUniverse == 5 && regexp("^/cvmfs/{pattern}/", string(SingularityImage ?: ContainerImage))
    SET Requirements ($(MY.Requirements)) && (TARGET.HasImageResolver =?= true || TARGET.{attribute} =?= true)
@end
"""
_ACCESS_POINT_SIFS = """\

JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) ImageResolverSIF

# A job of the container universe that names one of our SIFs by its URL would have it transferred into its own scratch directory,
# and counted against its disk. So the URL leaves the list of files: the execution point has the SIF in its cache, or fetches it.
JOB_TRANSFORM_ImageResolverSIF @=end
    REQUIREMENTS JobUniverse == 5 && regexp("^({places})/([^?]*/)?[0-9a-f]{{64}}[.]sif$", string(ContainerImageFullPath))
    EVALSET TransferInput replace("(^|,) *[^,]*/$(MY.ContainerImage)[^,]*", TransferInput, "")
    EVALSET TransferInput replace("^,", TransferInput, "")
    # nor is it one of the files in common, as it is with CONTAINER_IMAGES_COMMON_BY_DEFAULT
    if defined MY.CommonInputCatalogs
        EVALSET CommonInputCatalogs replace("(^|,) *container_[^,]*", CommonInputCatalogs, "")
    endif
    COPY ContainerImageFullPath ContainerImage
    SET ContainerImageSource "local"
    SET Requirements ($(MY.Requirements)) && TARGET.HasImageResolver =?= true
@end
"""
_RETRY, _PERIOD = 10, 5  # minutes


def execution_point(settings: ResolverSettings, *, apptainer: str, binds: Iterable[str], program: str, config: str) -> str:
    """The configuration of an execution point, with comments.

    Args:
        settings: of the resolver here.
        apptainer: the program that HTCondor is to use.
        binds: for ``--bind``, absolute paths with or without ``:destination:options``.
        program: this program's absolute path.
        config: the resolver's configuration file, absolute.
    """
    return _EXECUTION_POINT.format(
        keyword=settings.hook_keyword,
        program=program,
        config=config,
        apptainer=apptainer,
        every_job=_word(bool(settings.default_image)),
        binds=",".join(binds),
        extra=f'"{settings.extra_arguments}"',
        retry=_RETRY,
        seconds=_RETRY * 60,
        period=_PERIOD,
    )


def pilot(default_image: str, binds: Iterable[str], attributes: Sequence[str]) -> str:
    """What one pilot adds to :func:`execution_point`: read after it.

    Args:
        default_image: of jobs that name none, empty for none.
        binds: what exists of the binds.
        attributes: of the machine, ``Name = value`` each.
    """
    lines = [f"IMAGE_RESOLVER_BINDS = {','.join(binds)}", *attributes]
    if default_image:
        lines.append(f"IMAGE_RESOLVER_FLAGS = --default-image {default_image}")
    lines.append(f"IMAGE_RESOLVER_EVERY_JOB = {_word(bool(default_image))}")
    names = " ".join(line.partition(" = ")[0] for line in attributes)
    lines.append(f"STARTD_ATTRS = $(STARTD_ATTRS) {names}")
    return "\n".join(lines)


def _word(yes: bool) -> str:
    return "true" if yes else "false"


def access_point(settings: ResolverSettings) -> str:
    """The configuration of an access point whose jobs name images of this repository, for a file of its configuration."""
    attribute = "HAS_CVMFS_" + "".join(character if character.isalnum() else "_" for character in settings.name)
    written = _ACCESS_POINT.format(name=settings.name, pattern=_pattern(settings.name), attribute=attribute)
    places = [_pattern(place.partition("?")[0].rstrip("/")) for place in (*settings.origins, *settings.mirrors) if "://" in place]
    return written + (_ACCESS_POINT_SIFS.format(places="|".join(places)) if places else "")


def _pattern(text: str) -> str:
    """A regular expression for a text, without backslashes, which HTCondor's configuration and its strings use themselves."""
    return "".join(
        letter if letter.isalnum() or letter in "/:-_~%@" else "." if letter in '^\\"$' else f"[{letter}]" for letter in text
    )
