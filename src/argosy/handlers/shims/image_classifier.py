"""The built-in handler `image_classifier`: the likeliest classes of each image, by name."""

from __future__ import annotations

from typing import Any

from argosy.handlers.shims.libraries import functional, torch
from argosy.handlers.shims.timer import timed
from argosy.handlers.shims.util import map_class_to_label
from argosy.handlers.shims.vision_handler import VisionHandler, centre_square, image_tensor, normalised


class ImageClassifier(VisionHandler):
    """For models trained on ImageNet's pictures of 224 by 224 pixels. topk: how many classes are answered."""

    topk = 5

    def set_max_result_classes(self, topk: int) -> None:
        """How many classes to answer."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes are answered."""
        return self.topk

    def image_processing(self, image: Any) -> Any:
        """The middle of the picture, normalised."""
        return normalised(image_tensor(centre_square(image)))

    @timed
    def postprocess(self, data: Any) -> list[dict[str, Any]]:
        """For each image the likeliest classes and their probabilities."""
        count = min(self.topk, data.shape[1])
        probabilities, classes = torch.topk(functional.softmax(data, dim=1), count, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
