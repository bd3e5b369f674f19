"""The metrics of the control plane: what is declared, what runs, what was decided; and how its merged scrape went.

Label values are names of declared services and of what the control plane made for them, and words of its own enums.
"""

from __future__ import annotations

import msgspec

from argosy.observe.metric import Metric, counter, gauge, histogram

# A control plane is built for 1,000 services of a few phases and revisions each.
_MAX_SERIES = 20_000
RECONCILE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_SERVICE = ("service",)
_REVISION = ("service", "revision")
_SOURCE = ("source", "service", "revision", "replica", "gateway")

_ROWS: tuple[Metric, ...] = (
    gauge("argosy_control_service_phase", "constant 1", "The phase a service is in.", ("service", "phase")),
    gauge("argosy_control_rollout_phase", "constant 1", "The phase a service's rollout is in.", ("service", "phase")),
    gauge("argosy_control_desired_replicas", "replicas", "Replicas wanted, as the autoscaler decided.", _SERVICE),
    gauge("argosy_control_ready_replicas", "replicas", "Replicas that take requests.", _SERVICE),
    gauge("argosy_control_max_replicas", "replicas", "The most replicas the service may have.", _SERVICE),
    gauge("argosy_control_revision_weight_ratio", "ratio", "A revision's share of the traffic, 0 to 1.", _REVISION),
    gauge("argosy_control_replicas", "replicas", "Replicas by phase, spares included.", (*_REVISION, "phase")),
    gauge("argosy_control_spare_replicas", "replicas", "Warm spares: loaded, healthy, unrouted.", _REVISION),
    gauge("argosy_control_replica_restarts", "restarts", "Restarts of the replicas there are now, summed.", _REVISION),
    gauge(
        "argosy_control_replica_start_seconds",
        "seconds",
        "The longest start of the replicas that are ready now, from process to ready.",
        _REVISION,
    ),
    counter(
        "argosy_control_events",
        "events",
        "Events by reason: scaling decisions, rollouts, failures (docs/events.md).",
        ("service", "reason"),
    ),
    histogram(
        "argosy_control_reconcile_seconds", "seconds", "One look at one service, actions too.", RECONCILE_BUCKETS, ()
    ),
    counter("argosy_control_reconcile_errors", "looks", "Looks that did not finish, by reason.", ("reason",)),
    gauge("argosy_control_last_pass_timestamp_seconds", "seconds", "When a look last finished, unix time.", ()),
    gauge("argosy_control_gateways", "gateways", "Gateways that report.", ()),
    gauge("argosy_control_figures_stale", "0 or 1", "Whether figures are missing, so that no number may fall.", ()),
    gauge("argosy_scrape_up", "0 or 1", "Whether the metrics of this source are in this scrape.", _SOURCE),
    gauge("argosy_scrape_seconds", "seconds", "How long collecting all sources took.", ()),
    counter("argosy_scrape_dropped_samples", "samples", "Samples left out: twice, wrong types, too many.", ()),
)  # fmt: skip

CONTROL_METRICS: tuple[Metric, ...] = tuple(msgspec.structs.replace(row, max_series=_MAX_SERIES) for row in _ROWS)
