"""What holds for the workers of every model of a server."""

from __future__ import annotations

import os
import sys

import msgspec

from argosy.handlers.worker.messages import DeclaredMetric

# What an archive's code may know of the server's own environment: where programs, libraries, certificates, devices and
# temporary files are, and which language and time zone. Never keys.
_PASSED_NAMES = frozenset({
    "PATH", "HOME", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME",
})  # fmt: skip
_PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "MKL_", "KMP_", "GOMP_")


class HandlerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a server's workers.

    passed_variables: names of environment variables that handlers may see beyond the usual ones.
    decodes_input: JSON arrives parsed and text as str (`decode_input_request`). service_envelope: for archives that
    name none; "" = none. limits_image_pixels: Pillow's guard against image bombs stays on (`limit_max_image_pixels`).
    declared_metrics: `model_metrics` of a metrics.yaml. allowed_content: what our base handler may load though it can
    run code: `pickle`, `torchscript`. shares_imports: fork workers from a nursery; else each is a
    process of its own with memory of its own. python: interpreter that workers run in.
    """

    passed_variables: tuple[str, ...] = ()
    decodes_input: bool = True
    service_envelope: str = ""
    limits_image_pixels: bool = True
    declared_metrics: tuple[DeclaredMetric, ...] = ()
    allowed_content: frozenset[str] = frozenset()
    shares_imports: bool = True
    python: str = sys.executable


def worker_environment(options: HandlerOptions) -> dict[str, str]:
    """The environment variables of workers and nurseries: what they may know of ours."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_NAMES or name.startswith(_PASSED_PREFIXES) or name in options.passed_variables
    }
    # Libraries that start their thread pool when imported would make a nursery unable to fork.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**passed, **one_thread, "TOKENIZERS_PARALLELISM": "false"}
