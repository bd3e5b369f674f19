"""What a declared service must be before it is stored: every rule that its type cannot say. Pure.

A message names the field, its value and the remedy, and all that is wrong is said at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from argosy.control.reasons import ConditionReason
from argosy.control.workloads import SERVE_ARGS
from argosy.core.engine import EngineSettings
from argosy.core.errors import Conflict, SpecError
from argosy.core.inference_service import (
    GatewayPolicy,
    InferenceService,
    PromotionPolicy,
    Revision,
    RevisionTemplate,
    RolloutPolicy,
)
from argosy.core.model import is_name
from argosy.core.scaling import ScalingPolicy

MAX_REPLICAS = 1000
MAX_SPARES = 100
# Lower case and short, so that names of revisions and replicas are valid wherever replicas may run.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?")
_LIKE_A_REVISION = re.compile(r".*-v[0-9]+")
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def check_service(service: InferenceService, others: Iterable[InferenceService], revisions: Iterable[Revision]) -> None:
    """Refuse a service that could not be run as it says. revisions: those it has already.

    Raises: SpecError with all that is wrong; Conflict if a name is another service's.
    """
    problems = list(spec_problems(service, revisions))
    if problems:
        raise SpecError("; ".join(problems))
    taken = list(_name_clashes(service, others))
    if taken:
        raise Conflict("; ".join(taken))


def spec_refusal(service: InferenceService, revisions: Iterable[Revision]) -> str | None:
    """Why a stored spec cannot be followed; None = it can. Only a spec not seen before, or refused before, is read."""
    seen = service.status.observed_generation == service.metadata.generation
    was_refused = any(each.reason == ConditionReason.SPEC_REFUSED for each in service.status.conditions)
    if seen and not was_refused:
        return None
    return "; ".join(spec_problems(service, revisions)) or None


def spec_problems(service: InferenceService, revisions: Iterable[Revision]) -> Iterator[str]:
    """What is wrong with a service by itself, one sentence each."""
    spec, known = service.spec, {each.short_name for each in revisions}
    yield from _name(service.metadata.name)
    yield from _template(service.metadata.name, spec.template)
    yield from _scaling(spec.scaling)
    yield from _rollout(spec.rollout)
    yield from _gateway(spec.gateway, known)
    yield from _traffic(spec.traffic, known)
    if not 0 <= spec.warm_spares <= MAX_SPARES:
        yield f"warm_spares is {spec.warm_spares}: choose 0 to {MAX_SPARES}"


def _name(name: str) -> Iterator[str]:
    shown = name if len(name) <= 60 else name[:57] + "..."
    if not _NAME.fullmatch(name) or not is_name(name):
        yield (
            f"name {shown!r} is not valid: use 1 to 48 lower-case letters, digits, '-' or '.', "
            "beginning and ending with a letter or digit"
        )
    elif _LIKE_A_REVISION.fullmatch(name):
        yield f"name {name!r} ends like a revision: choose one that does not end in -v and a number"


def _name_clashes(service: InferenceService, others: Iterable[InferenceService]) -> Iterator[str]:
    own = service.metadata.name
    adapters = service.spec.template.adapters
    for other in others:
        name = other.metadata.name
        if name == own:
            continue
        if name in adapters:
            yield f"template.adapters: {name!r} is the name of a service already: give the adapter another name"
        for adapter in other.spec.template.adapters:
            if adapter == own:
                yield f"name {own!r} is an adapter of service {name!r}: choose another name"
            elif adapter in adapters:
                yield f"template.adapters: {adapter!r} is an adapter of service {name!r} too: give it another name"


def _template(service: str, template: RevisionTemplate) -> Iterator[str]:
    if not template.model.strip():
        yield "template.model is empty: name a model, such as smollm2 (`argosy models` lists some)"
    elif template.model.startswith("-"):
        yield f"template.model {template.model!r} begins with a dash: name a model or a path"
    for name, directory in template.adapters.items():
        if not is_name(name) or "=" in name:
            yield f"template.adapters: {name[:60]!r} is not a valid name: use letters, digits, '.', '_' and '-'"
        if name == service:
            yield f"template.adapters: {name!r} is the service's own name: give the adapter another one"
        if not directory.strip():
            yield f"template.adapters.{name} is empty: name the adapter's directory"
    if template.engine_settings.cache_dir is not None:
        yield "template.engine_settings.cache_dir cannot be set for a service: replicas choose it; leave it out"
    for field, value in _numbers(template.resources):
        if not value >= 0:
            yield f"template.resources.{field} is {value}: choose 0 (any machine) or more"
    if not template.start_timeout_seconds > 0:
        yield f"template.start_timeout_seconds is {template.start_timeout_seconds:g}: choose more than 0"
    if not template.shutdown_grace_seconds >= 0:
        yield f"template.shutdown_grace_seconds is {template.shutdown_grace_seconds:g}: choose 0 or more"
    yield from _serve_args(template)


def _serve_args(template: RevisionTemplate) -> Iterator[str]:
    for name, value in template.serve_args.items():
        wanted = SERVE_ARGS.get(name)
        if name.replace("-", "_") in EngineSettings.__struct_fields__:
            yield f"template.serve_args: set template.engine_settings.{name.replace('-', '_')} instead of {name!r}"
        elif wanted is None:
            yield f"template.serve_args: {name[:60]!r} cannot be set here; there are {', '.join(sorted(SERVE_ARGS))}"
        elif not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            shown = " or ".join({int: "a whole number", float: "a number", str: "text", bool: "true or false"}[each]
                                for each in kinds)  # fmt: skip
            yield f"template.serve_args.{name} is {value!r}: write {shown}"


def _scaling(policy: ScalingPolicy) -> Iterator[str]:
    if not 0 <= policy.min_replicas <= policy.max_replicas:
        yield (
            f"scaling.min_replicas is {policy.min_replicas} and max_replicas {policy.max_replicas}: "
            "choose 0 <= min_replicas <= max_replicas"
        )
    if policy.max_replicas > MAX_REPLICAS:
        yield f"scaling.max_replicas is {policy.max_replicas}: choose at most {MAX_REPLICAS}"
    if policy.target is not None and not policy.target > 0:
        yield f"scaling.target is {policy.target:g}: choose more than 0, or leave it out for the metric's usual one"
    if policy.metric.value in ("slo", "kv_cache_usage") and policy.target is not None and not policy.target <= 1:
        yield f"scaling.target is {policy.target:g}: {policy.metric.value} is a share, choose at most 1"
    for field in ("window_seconds", "panic_window_seconds"):
        if not getattr(policy, field) > 0:
            yield f"scaling.{field} is {getattr(policy, field):g}: choose more than 0"
    for field in (
        "tolerance", "scale_up_stabilization_seconds", "scale_down_stabilization_seconds",
        "scale_to_zero_after_seconds",
    ):  # fmt: skip
        if not getattr(policy, field) >= 0:
            yield f"scaling.{field} is {getattr(policy, field):g}: choose 0 or more"
    for field in ("panic_threshold", "max_scale_up_ratio"):
        if not getattr(policy, field) > 1:
            yield f"scaling.{field} is {getattr(policy, field):g}: choose more than 1"
    for field, value in _numbers(policy.slo):
        if not value > 0:
            yield f"scaling.slo.{field} is {value:g}: choose more than 0"


def _rollout(policy: RolloutPolicy) -> Iterator[str]:
    for field in ("max_surge", "max_unavailable", "history_limit"):
        if not getattr(policy, field) >= 0:
            yield f"rollout.{field} is {getattr(policy, field)}: choose 0 or more"
    if policy.max_surge == 0 == policy.max_unavailable:
        yield "rollout.max_surge and max_unavailable are both 0: nothing could ever be replaced; raise one of them"
    if not policy.progress_deadline_seconds > 0:
        yield f"rollout.progress_deadline_seconds is {policy.progress_deadline_seconds:g}: choose more than 0"
    if policy.promotion is not None:
        if policy.max_surge < 1:
            yield "rollout.promotion needs max_surge of 1 or more: both revisions run while they are compared"
        yield from _promotion(policy.promotion)


def _promotion(policy: PromotionPolicy) -> Iterator[str]:
    steps = list(policy.steps)
    is_ascending = all(low < high for low, high in pairwise(steps))
    if not steps or steps[-1] != 100 or steps[0] < 1 or not is_ascending:
        yield f"rollout.promotion.steps is {steps}: write ascending percentages from 1 that end in 100"
    if policy.min_requests < 1:
        yield f"rollout.promotion.min_requests is {policy.min_requests}: choose 1 or more"
    if not 0 <= policy.max_error_rate <= 1:
        yield f"rollout.promotion.max_error_rate is {policy.max_error_rate:g}: it is a share, choose 0 to 1"
    for field in ("max_ttft_ratio", "max_tpot_ratio"):
        if not getattr(policy, field) >= 1:
            yield f"rollout.promotion.{field} is {getattr(policy, field):g}: choose 1 or more"
    if not policy.interval_seconds >= 0:
        yield f"rollout.promotion.interval_seconds is {policy.interval_seconds:g}: choose 0 or more"
    if not policy.timeout_seconds >= policy.interval_seconds:
        yield (
            f"rollout.promotion.timeout_seconds is {policy.timeout_seconds:g}: choose at least "
            f"interval_seconds, {policy.interval_seconds:g}"
        )


def _gateway(policy: GatewayPolicy, known: set[str]) -> Iterator[str]:
    if policy.deadline_seconds is not None and not policy.deadline_seconds > 0:
        yield f"gateway.deadline_seconds is {policy.deadline_seconds:g}: choose more than 0, or leave it out"
    if not policy.hold_seconds >= 0:
        yield f"gateway.hold_seconds is {policy.hold_seconds:g}: choose 0 (hold nobody) or more"
    if policy.max_held < 0:
        yield f"gateway.max_held is {policy.max_held}: choose 0 or more"
    if not 0 <= policy.retry_ratio <= 1:
        yield f"gateway.retry_ratio is {policy.retry_ratio:g}: it is a share of requests, choose 0 to 1"
    if policy.sticky is not None and not _HEADER.fullmatch(policy.sticky.header):
        yield f"gateway.sticky.header is {policy.sticky.header[:60]!r}: write a header's name in lower case"
    if policy.shadow is not None:
        if not 1 <= policy.shadow.percent <= 100:
            yield f"gateway.shadow.percent is {policy.shadow.percent}: choose 1 to 100"
        if policy.shadow.revision not in known:
            yield f"gateway.shadow.revision: {_no_revision(policy.shadow.revision, known)}"
    if policy.cache is not None:
        for field, value in _numbers(policy.cache):
            if not value > 0:
                yield f"gateway.cache.{field} is {value:g}: choose more than 0, or leave the cache out"


def _traffic(traffic: dict[str, int], known: set[str]) -> Iterator[str]:
    for name, weight in traffic.items():
        if name not in known:
            yield f"traffic: {_no_revision(name, known)}"
        if not 0 <= weight <= 100:
            yield f"traffic.{name} is {weight}: it is a percentage, choose 0 to 100"
    if traffic and sum(traffic.values()) != 100:
        shown = " + ".join(f"{name}={weight}" for name, weight in traffic.items())
        yield f"traffic is {shown}, together {sum(traffic.values())}: the percentages must make 100"


def _no_revision(name: str, known: set[str]) -> str:
    there_are = ", ".join(sorted(known, key=lambda each: int(each[1:]))) or "none yet: deploy first"
    return f"there is no revision {name[:60]!r}; there are {there_are}"


def _numbers(part: msgspec.Struct) -> Sequence[tuple[str, float]]:
    return [(name, getattr(part, name)) for name in part.__struct_fields__]
