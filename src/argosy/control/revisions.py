"""Templates become revisions: immutable, numbered, and found again when a template comes back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from argosy.core.inference_service import InferenceService, Revision, RevisionSpec, RevisionTemplate
from argosy.core.metadata import Metadata
from argosy.core.workload import SERVICE_LABEL


def number_of(revision: str) -> int:
    """3 of `v3`."""
    return int(revision[1:])


def template_digest(template: RevisionTemplate) -> str:
    """What people compare templates by; equality decides."""
    return blake2b(msgspec.json.encode(template, enc_hook=str, order="sorted"), digest_size=8).hexdigest()


def revision_of(template: RevisionTemplate, revisions: Iterable[Revision]) -> Revision | None:
    """The newest revision that has this template.

    Templates are compared as values, not by digest: a field that a later version of Argosy adds has its default in
    both, so an upgrade starts no rollout.
    """
    found = [each for each in revisions if each.spec.template == template]
    return max(found, key=lambda each: each.spec.number, default=None)


def next_revision(service: InferenceService, revisions: Sequence[Revision]) -> Revision:
    """The revision to create for the service's template: one number above all there are."""
    number = 1 + max((each.spec.number for each in revisions), default=0)
    name = service.metadata.name
    return Revision(
        metadata=Metadata(name=f"{name}-v{number}", labels={SERVICE_LABEL: name}),
        spec=RevisionSpec(
            service=name, number=number, template=service.spec.template, digest=template_digest(service.spec.template)
        ),
    )


def outdated(revisions: Sequence[Revision], in_use: Iterable[str], history_limit: int) -> tuple[Revision, ...]:
    """Revisions to forget: the oldest beyond the limit, none that runs, and never the newest, which numbers go by."""
    kept = set(in_use)
    oldest_first = sorted(revisions, key=lambda each: each.spec.number)
    spare = [each for each in oldest_first[:-1] if each.short_name not in kept]
    return tuple(spare[: max(0, len(spare) - history_limit)])
