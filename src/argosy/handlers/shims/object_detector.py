"""The built-in handler `object_detector`: what is in each image, where, and how surely."""

from __future__ import annotations

from typing import Any

from argosy.handlers.shims.util import map_class_to_label
from argosy.handlers.shims.vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """For models that answer boxes, labels and scores, as torchvision's do. threshold: the least score answered."""

    threshold = 0.5

    def postprocess(self, data: Any) -> list[list[dict[str, Any]]]:
        """For each image its objects: `{name: box, "score": …}`."""
        return [self._objects(row) for row in data]

    def _objects(self, row: Any) -> list[dict[str, Any]]:
        chosen = row["scores"] >= self.threshold
        boxes, labels, scores = (row[key][chosen].tolist() for key in ("boxes", "labels", "scores"))
        return [
            {**map_class_to_label([[box]], self.mapping, [[label]])[0], "score": score}
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]
