"""`BaseHandler`: loads a model, and calls `preprocess`, `inference` and `postprocess`, which handlers override.

A model is the only class of the archive's model file, with its weights from safetensors; or TorchScript or a pickle
where the operator allowed that content (`weights.py`); or ONNX where onnxruntime is installed.
Source: ts/torch_handler/base_handler.py of 0.12.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import time
from pathlib import Path
from typing import Any

from argosy.core.errors import SpecError
from argosy.handlers.shims.libraries import LazyLibrary, torch
from argosy.handlers.shims.timer import timed
from argosy.handlers.shims.util import check_valid_pt2_backend, load_label_mapping
from argosy.handlers.shims.weights import WeightsKind, check_allowed
from argosy.handlers.worker.calls import PredictionException
from argosy.handlers.worker.context import Context
from argosy.handlers.worker.loading import classes_of, load_module

_LOG = logging.getLogger("ts.base_handler")
_onnxruntime: Any = LazyLibrary("onnxruntime")
_safetensors: Any = LazyLibrary("safetensors.torch")
INDEX_TO_NAME = "index_to_name.json"


class BaseHandler:
    """A handler's life: `initialize` once, then `handle` for every batch."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target: Any = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: dict[str, Any] = {}
        self._allowed_content: frozenset[str] = frozenset()

    def initialize(self, context: Context) -> None:
        """Load the model. Raises: SpecError if the archive has none that may be loaded."""
        self.model_yaml_config = context.model_yaml_config or {}
        self.manifest = context.manifest
        model = self.manifest["model"]
        root = Path(context.system_properties["model_dir"])
        serialized = model.get("serializedFile", "")
        self._allowed_content = context.allowed_content
        kind = check_allowed(root / serialized, self._allowed_content) if serialized else None
        self.model_pt_path = str(root / serialized) if serialized else None
        self._choose_device(context.system_properties.get("gpu_id"))
        if model.get("modelFile"):
            self.model = self._load_pickled_model(str(root), model["modelFile"], self.model_pt_path)
            self.model.to(self.device)
            self.model.eval()
        elif kind is WeightsKind.TORCHSCRIPT:
            self.model = self._load_torchscript_model(self.model_pt_path)
            self.model.eval()
        elif kind is WeightsKind.ONNX:
            self.model = self._load_onnx_model(self.model_pt_path)
        else:
            raise SpecError(
                "the archive has weights without the code of their model: add it with --model-file, "
                "or load the model in the handler's own initialize()"
            )
        self._compile()
        self.mapping = load_label_mapping(root / INDEX_TO_NAME)
        self.initialized = True

    def _choose_device(self, gpu: int | None) -> None:
        self.map_location = "cpu"
        if gpu is not None and torch.cuda.is_available():
            self.map_location = "cuda"
        elif gpu is not None and torch.xpu.is_available():
            self.map_location = "xpu"
        elif gpu is not None and torch.backends.mps.is_available():
            self.map_location = "mps"
        elif importlib.util.find_spec("torch_xla") is not None:
            self.device = importlib.import_module("torch_xla.core.xla_model").xla_device()
            return
        is_numbered = self.map_location in ("cuda", "xpu")
        self.device = torch.device(f"{self.map_location}:{gpu}" if is_numbered else self.map_location)

    def _load_torchscript_model(self, model_pt_path: str | None) -> Any:
        return torch.jit.load(model_pt_path, map_location=self.device)

    def _load_onnx_model(self, model_pt_path: str | None) -> Any:
        options = _onnxruntime.SessionOptions()
        # It does not read the variable itself, and would take every core in every worker.
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        accelerators = ["CUDAExecutionProvider"] if self.map_location == "cuda" else []
        providers = [*accelerators, "CPUExecutionProvider"]
        return _onnxruntime.InferenceSession(model_pt_path, options, providers=providers)

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """The model file's only class with its weights. The name is TorchServe's; the weights are safetensors."""
        path = Path(model_dir) / model_file
        if not path.is_file():
            raise SpecError(f"the archive has no model file {model_file}")
        classes = classes_of(load_module(path))
        if len(classes) != 1:
            names = ", ".join(each.__name__ for each in classes) or "none"
            raise SpecError(f"{model_file} must define one class, the model; it defines: {names}")
        model: Any = classes[0]()
        if model_pt_path:
            model.load_state_dict(self._load_weights(Path(model_pt_path)))
        return model

    def _load_weights(self, path: Path) -> Any:
        if check_allowed(path, self._allowed_content) is WeightsKind.SAFETENSORS:
            # CPU tensors stay in the file's pages, which all workers share.
            return _safetensors.load_file(str(path), device=str(self.device))
        return torch.load(path, map_location=self.device, weights_only=True)

    def _compile(self) -> None:
        section = self.model_yaml_config.get("pt2")
        if not section:
            return
        options: dict[str, Any] = {"backend": section} if isinstance(section, str) else dict(section)
        if "export" in options:
            raise SpecError("pt2: export (models compiled ahead of time) cannot be loaded: use compile")
        if isinstance(options.get("compile"), dict):
            options = dict(options["compile"])
            if not options.pop("enable", False):
                return
        if "backend" in options and not check_valid_pt2_backend(options["backend"]):
            return
        self.model = torch.compile(self.model, **options)
        _LOG.info("the model is compiled at its first call: %s", options)

    @timed
    def preprocess(self, data: Any) -> Any:
        """Inputs of a batch to what the model takes: a tensor, here."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """What the model gave to a list of results, one for each request."""
        return data.tolist()

    def handle(self, data: list[dict[str, Any]], context: Context) -> Any:
        """Answer a batch; how long it took is the gauge `HandlerTime`."""
        started = time.perf_counter()
        self.context = context
        if self._is_describe():
            output: Any = [self.describe_handle()]
        elif os.environ.get("ENABLE_TORCH_PROFILER"):
            output, _ = self._infer_with_profiler(data)
        else:
            output = self._infer(data)
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    def _infer(self, data: list[dict[str, Any]]) -> Any:
        prepared = self.preprocess(data)
        if self._is_explain():
            return self.explain_handle(prepared, data)
        return self.postprocess(self.inference(prepared))

    def _infer_with_profiler(self, data: list[dict[str, Any]]) -> tuple[Any, Any]:
        """The same under PyTorch's profiler; its table goes to the log."""
        arguments = {"record_shapes": True, **self.profiler_args}
        with torch.profiler.profile(**arguments) as profile:
            output = self._infer(data)
        _LOG.info(profile.key_averages().table(sort_by="cpu_time_total", row_limit=10))
        return output, profile

    def explain_handle(self, data_preprocess: Any, raw_data: list[dict[str, Any]]) -> Any:
        """Explanations of the first request, by the handler's `get_insights`."""
        row = raw_data[0]
        inputs = row.get("data") or row.get("body") if isinstance(row, dict) else None
        target = (row.get("target") if isinstance(row, dict) else None) or 0
        insights = getattr(self, "get_insights", None)
        if insights is None:
            raise PredictionException("the handler explains nothing: it has no get_insights", 501)
        return insights(data_preprocess, inputs, target)

    def _is_explain(self) -> bool:
        self.explain = self._is_asked("explain")
        return self.explain

    def _is_describe(self) -> bool:
        return self._is_asked("describe")

    def _is_asked(self, header: str) -> bool:
        return bool(self.context) and self.context.get_request_header(0, header) == "True"

    def describe_handle(self) -> Any:
        """What the management API shows as `customizedMetadata`. For handlers to override."""
        return None

    def get_device(self) -> Any:
        """Where the model is."""
        return self.device
