"""A handler that translates: `{"text": …, "from": "en", "to": "fr"}` in, `{"text": …}` out.

Written after what the handler of Google's GKE sample does (GoogleCloudPlatform/kubernetes-engine-samples,
ai-ml/t5-model-serving/model/handler.py, Apache-2.0): same archive members, same setup_config.json, same payload, same
prompt. It differs in three places, each of which breaks the sample's own clients: rows of a batch are padded to one
length (the sample works with batches of one only), texts are not cut after twenty tokens, and a code that is no
language is the client's fault (400), not the server's (503).

It runs unchanged under TorchServe and under `argosy serve --torchserve`.
"""

import json
import logging
from pathlib import Path

import torch
from transformers import T5ForConditionalGeneration, T5Tokenizer
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
MAX_NEW_TOKENS = 128


class T5Handler(BaseHandler):
    """Loads a T5 from the archive and translates with it."""

    def initialize(self, context):
        """Load tokenizer and weights, as setup_config.json says. Raises: RuntimeError."""
        self.manifest = context.manifest
        properties = context.system_properties
        model_dir = Path(properties["model_dir"])
        if not (model_dir / self.manifest["model"]["serializedFile"]).is_file():
            raise RuntimeError(f"the archive lacks its serialized file: {self.manifest['model']['serializedFile']}")
        gpu = properties.get("gpu_id")
        has_gpu = torch.cuda.is_available() and gpu is not None
        self.device = torch.device(f"cuda:{gpu}" if has_gpu else "cpu")
        mode = json.loads((model_dir / "setup_config.json").read_text())["save_mode"]
        if mode == "pretrained":
            self.model = T5ForConditionalGeneration.from_pretrained(model_dir)
        elif mode == "torchscript":
            self.model = torch.jit.load(model_dir / self.manifest["model"]["serializedFile"], self.device)
        else:
            raise RuntimeError(f"setup_config.json: save_mode is {mode!r}, not pretrained or torchscript")
        self.tokenizer = T5Tokenizer.from_pretrained(model_dir)
        self.model.to(self.device).eval()
        logger.info("loaded a T5 from %s", model_dir)
        self.initialized = True

    def preprocess(self, requests):
        """Requests to token ids of one length."""
        prompts = [self._prompt(request.get("body", request.get("data"))) for request in requests]
        return self.tokenizer(prompts, padding=True, return_tensors="pt").to(self.device)

    def inference(self, data, *args, **kwargs):
        """Token ids of the translations."""
        with torch.inference_mode():
            return self.model.generate(**data, max_new_tokens=MAX_NEW_TOKENS)

    def postprocess(self, data):
        """Token ids to one answer per request."""
        return [{"text": text} for text in self.tokenizer.batch_decode(data, skip_special_tokens=True)]

    def _prompt(self, body):
        """`translate English to French: …`. Raises: PredictionException with status 400."""
        try:
            text, source, target = (_text(body[key]) for key in ("text", "from", "to"))
            return f"translate {LANGUAGES[source]} to {LANGUAGES[target]}: {text}"
        except (KeyError, TypeError) as error:
            wanted = f"text, and from and to, each one of {', '.join(LANGUAGES)}"
            raise PredictionException(f"Send a JSON object with {wanted}.", 400) from error


def _text(value):
    return value.decode() if isinstance(value, (bytes, bytearray)) else value
