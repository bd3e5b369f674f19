"""`VisionHandler`: images in, tensors to the model. Pillow reads them; torchvision is not needed."""

from __future__ import annotations

import base64
import importlib
import io
from functools import cached_property
from typing import Any

from argosy.handlers.shims.base_handler import BaseHandler
from argosy.handlers.shims.libraries import captum, pillow, torch
from argosy.handlers.shims.timer import timed
from argosy.handlers.worker.context import Context

# ImageNet's statistics of the red, green and blue channel.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class VisionHandler(BaseHandler):
    """Subclasses say in `image_processing` how a Pillow image becomes a tensor."""

    def initialize(self, context: Context) -> None:
        """As the base handler; lifts Pillow's limit of pixels where the operator has."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels"):
            importlib.import_module("PIL.Image").MAX_IMAGE_PIXELS = None  # type: ignore[attr-defined]
        self.initialized = True

    @cached_property
    def ig(self) -> Any:
        """Integrated gradients of the model, for explanations. Needs captum."""
        return captum.IntegratedGradients(self.model)

    def image_processing(self, image: Any) -> Any:
        """A Pillow image as a tensor of shape [3, height, width], values 0 to 1."""
        return image_tensor(image)

    @timed
    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """The images of a batch as one tensor: files, base64 text, or nested lists of numbers."""
        images = []
        for row in data:
            image = row.get("data") or row.get("body")
            if isinstance(image, str):
                image = base64.b64decode(image)
            if isinstance(image, bytearray | bytes):
                image = self.image_processing(pillow.open(io.BytesIO(image)))
            else:
                image = torch.FloatTensor(image)
            images.append(image)
        return torch.stack(images).to(self.device)

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> Any:
        """How much each pixel speaks for the class `target`. Needs captum."""
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()


def image_tensor(image: Any) -> Any:
    """A Pillow image as a tensor of shape [3, height, width], values 0 to 1."""
    image = image.convert("RGB")
    width, height = image.size
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(height, width, 3).permute(2, 0, 1).float() / 255


def centre_square(image: Any, resized: int = 256, cropped: int = 224) -> Any:
    """A Pillow image, its shorter side made `resized` pixels long, its middle of `cropped` by `cropped` pixels."""
    width, height = image.size
    short = min(width, height)
    image = image.resize((resized * width // short, resized * height // short), pillow.BILINEAR)
    width, height = image.size
    left, top = round((width - cropped) / 2), round((height - cropped) / 2)
    return image.crop((left, top, left + cropped, top + cropped))


def normalised(tensor: Any) -> Any:
    """A tensor of shape [3, height, width] by ImageNet's mean and deviation."""
    return (tensor - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
