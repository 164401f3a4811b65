"""Assembles the check of image list entries: which entries are checked, and the verdict on each."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.images import reader
from publisher.images.list_diff import ListDiff, since
from publisher.plan import lint, quota
from publisher.plan.model import UnlistedPattern

if TYPE_CHECKING:
    from publisher.plan.lint import CheckedEntry
    from publisher.publish.intake import Intake
    from publisher.settings.settings import PublisherSettings

_SAMPLE = 3
"""Number of images of a pattern that are checked."""
_log = logging.getLogger(__name__)


def select_changes(settings: PublisherSettings, base: str | None) -> ListDiff:
    """Return the entries to check: those that differ from the git revision ``base``, or all if it is None.

    Raises:
        UsageError: the list cannot be read, is not in a git repository, or the revision does not exist.
        ListError: the list is not valid.
    """
    if base is None:
        image_list = reader.load(settings.images, settings.name_template)
        return ListDiff(image_list, image_list, ())
    return since(base, settings.images, settings.name_template)


def check_entries(settings: PublisherSettings, changes: ListDiff, intake: Intake) -> list[CheckedEntry]:
    """Return the verdicts on changed entries, in the order of the list.

    Registries are asked anonymously. Of a pattern, the newest few images are checked.
    """
    changed = changes.changed
    _log.info("checking %d entries and %d patterns", len(changed.entries), len(changed.patterns))
    entries, checked = list(changed.entries), []
    for pattern, tags in zip(changed.patterns, intake.tags(changed.patterns), strict=True):
        if isinstance(tags, PublisherError):
            unlisted = UnlistedPattern(str(pattern), pattern.covers, tags)
            checked.append(lint.judge_unlisted(unlisted, pattern.line, pattern.reference.registry))
        else:
            expanded = reader.expand(pattern, tags)
            checked.append(lint.judge_pattern(str(pattern), pattern.line, [entry.name for entry in expanded]))
            entries += expanded[:_SAMPLE]
    images, today = intake.inspect(entries), datetime.now(UTC).date()
    checked += [lint.judge(entry, images[entry.name], settings.max_unpacked_size, today) for entry in entries]
    checked += [lint.judge_quota(problem) for problem in quota.over_quota(changes.current.entries, {}, settings.quotas)]
    return sorted(checked, key=lambda entry: (entry.line, entry.name))
