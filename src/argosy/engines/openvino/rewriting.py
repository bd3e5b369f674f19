"""A GGUF file becomes one whose weights OpenVINO's reader takes for what they are. Runs in the preparing child.

That reader turns the minimum of a Q4_1 or Q4_K block into an integer zero point, which is off by up to 7 % of the
largest weight, and refuses other types altogether. Those weights are written as Q8_0 (within half a 127th of each
block's largest weight); what is read exactly is copied. The new file holds the numbers the model needs and no
vocabulary, so native code never parses a stranger's header.
Source: openvino.genai 2026.4, gguf_utils; each type compared with gguf-py's values in tests/engines/openvino.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy

from argosy.core.errors import SpecError
from argosy.core.gguf import GgufFile, GgufTensor, GgufValue, read_gguf

EXACT_TYPES = frozenset({"f16", "q8_0", "q4_0", "q6_k"})
_BLOCK, _BLOCK_BYTES = 32, 34  # Q8_0: a half-precision scale and 32 signed bytes. Source: ggml, block_q8_0.
_FILE_TYPE_Q8_0 = 7  # Source: ggml, enum llama_ftype.
# Weights converted at a time: 256 kB of float32, which a core's own cache holds.
_CHUNK_WEIGHTS = 2**16
_MAX_THREADS = 8

OnRatio = Callable[[float], None]


def target_type(tensor: GgufTensor) -> str:
    """The type this tensor is written as. Pure.

    Vectors (norms, biases) stay or become float32. bf16 and f32 matrices become f16, the widest type that is read.
    """
    if len(tensor.shape) == 1:
        return "f32"
    if tensor.type in EXACT_TYPES:
        return tensor.type
    if tensor.type in ("f32", "bf16") or tensor.shape[0] % _BLOCK:
        return "f16"
    return "q8_0"


def rewritten_bytes(sources: Sequence[Path]) -> int:
    """The size of the new file's weights."""
    return sum(_target_bytes(tensor) for source in sources for tensor in read_gguf(source).tensors)


def rewrite(sources: Sequence[Path], target: Path, on_ratio: OnRatio) -> None:
    """Write the model in `sources` (one file, or the parts of a split one) as the one file `target`.

    on_ratio: called with the share that is done. Raises: SpecError if a file is not as GGUF says; OSError.
    """
    files = [read_gguf(source) for source in sources]
    writer = gguf.GGUFWriter(target, str(files[0].text("general.architecture", "")))
    _add_metadata(writer, files[0].metadata)
    tensors = [(file, tensor) for file in files for tensor in file.tensors]
    for _, tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tuple(reversed(tensor.shape)),
            numpy.dtype(numpy.float32),
            _target_bytes(tensor),
            raw_dtype=_ggml_type(target_type(tensor)),
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total, done = max(sum(tensor.size_bytes for _, tensor in tensors), 1), 0
        for tensor, weights in _converted(tensors):
            writer.write_tensor_data(weights)
            done += tensor.size_bytes
            on_ratio(done / total)
    finally:
        writer.close()


def as_q8_0(weights: Any) -> Any:
    """Rows of Q8_0 blocks. Shapes: weights (rows, n) float32 → (rows, n / 32 * 34) uint8.

    Source: ggml, quantize_row_q8_0_ref; halves round to even here, which moves no weight by more.
    """
    blocks = weights.reshape(-1, _BLOCK)
    scales = numpy.maximum(blocks.max(axis=1, keepdims=True), -blocks.min(axis=1, keepdims=True)) / numpy.float32(127)
    with numpy.errstate(divide="ignore"):
        steps = blocks * numpy.where(scales == 0, numpy.float32(0), 1 / scales)
    out = numpy.empty((len(blocks), _BLOCK_BYTES), numpy.uint8)
    out[:, :2] = scales.astype(numpy.float16).view(numpy.uint8)
    out[:, 2:] = numpy.rint(steps, out=steps).astype(numpy.int8).view(numpy.uint8)
    return out.reshape(len(weights), -1)


def _add_metadata(writer: Any, metadata: Mapping[str, GgufValue]) -> None:
    """The single values under the architecture's own keys; whole numbers in 32 bits, as the reader takes them."""
    writer.add_file_type(_FILE_TYPE_Q8_0)
    prefix = f"{metadata.get('general.architecture')}."
    for key, value in metadata.items():
        if not key.startswith(prefix):
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int) and 0 <= value < 2**32:
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)


def _converted(tensors: Sequence[tuple[GgufFile, GgufTensor]]) -> Iterator[tuple[GgufTensor, Any]]:
    """Each tensor with its new weights, one at a time: memory holds the largest of them, not the model."""
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        for file, tensor in tensors:
            rows = _rows(file, tensor)
            kind = target_type(tensor)
            if kind == tensor.type:
                yield tensor, rows
                continue
            convert = _converter(tensor, kind)
            step = max(1, _CHUNK_WEIGHTS // tensor.shape[0])
            chunks = pool.map(convert, (rows[start : start + step] for start in range(0, len(rows), step)))
            yield tensor, numpy.concatenate(list(chunks))


def _converter(tensor: GgufTensor, kind: str) -> Callable[[Any], Any]:
    source = _ggml_type(tensor.type)

    def convert(rows: Any) -> Any:
        weights = gguf.dequantize(rows, source)
        if kind == "q8_0":
            return as_q8_0(weights)
        return weights.astype(numpy.float16 if kind == "f16" else numpy.float32).view(numpy.uint8)

    return convert


def _rows(file: GgufFile, tensor: GgufTensor) -> Any:
    """The tensor as it lies in the file. Shapes: (product of the slower dimensions, bytes of a row) uint8."""
    data = numpy.memmap(file.path, dtype=numpy.uint8, mode="r", offset=tensor.offset, shape=(tensor.size_bytes,))
    return data.reshape(tensor.num_elements // tensor.shape[0], -1)


def _target_bytes(tensor: GgufTensor) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[_ggml_type(target_type(tensor))]
    return tensor.num_elements // int(block) * int(block_bytes)


def _ggml_type(name: str) -> Any:
    try:
        return gguf.GGMLQuantizationType[name.upper()]
    except KeyError:
        raise SpecError(f"the GGUF tensor type {name!r} is not known to gguf-py: use a Q4, Q5, Q6 or Q8 file") from None
