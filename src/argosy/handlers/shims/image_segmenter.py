"""The built-in handler `image_segmenter`: for each pixel its likeliest class and that class's probability."""

from __future__ import annotations

from typing import Any

from argosy.handlers.shims.libraries import functional, torch
from argosy.handlers.shims.vision_handler import VisionHandler, centre_square, image_tensor, normalised


class ImageSegmenter(VisionHandler):
    """For models that answer `{"out": [batch, class, height, width]}`, as torchvision's do."""

    def image_processing(self, image: Any) -> Any:
        """The middle of the picture, normalised."""
        return normalised(image_tensor(centre_square(image)))

    def postprocess(self, data: Any) -> Any:
        """For each image rows of pixels of [class, probability]."""
        best = torch.max(functional.softmax(data["out"], dim=1), dim=1)
        return torch.stack([best.indices.type(best.values.dtype), best.values], dim=3).tolist()
