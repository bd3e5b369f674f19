"""Metrics of one's own, of each kind."""

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


class Counted:
    def initialize(self, context):
        self.words = context.metrics.add_metric_to_cache(
            metric_name="WordsSeen", unit="count", dimension_names=["language"], metric_type=MetricTypes.COUNTER
        )

    def handle(self, data, context):
        metrics = context.metrics
        for row in data:
            body = row.get("body")
            text = body if isinstance(body, str) else bytes(body or b"").decode()
            self.words.add_or_update(len(text.split()), ["en"])
            metrics.add_counter("TextsSeen", 1, None, [Dimension("language", "en")])
            metrics.add_time("ThinkTime", 12.5, None, "ms", [Dimension("language", "en")])
            metrics.add_size("TextSize", len(text), None, "B", [Dimension("language", "en")])
            metrics.add_percent("Share", 50.0, None, [Dimension("language", "en")])
            metrics.add_error("Oddities", 1, [Dimension("language", "en")])
        return ["counted"] * len(data)
