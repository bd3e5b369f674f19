"""Weights OpenVINO misreads are rewritten within Q8_0's rounding; what it reads exactly stays bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("openvino_genai")

import gguf
import numpy
import openvino

from argosy.core.errors import SpecError
from argosy.core.gguf import GgufTensor, read_gguf
from argosy.engines.openvino.preparation import Job, Said
from argosy.engines.openvino.preparing import prepare
from argosy.engines.openvino.rewriting import as_q8_0, rewrite, rewritten_bytes, target_type

WIDTH, VOCABULARY = 256, 512
# Where a random block's half-precision scales lie, in bytes, for the types gguf-py can read and not write.
# Source: ggml, block_q4_K and its relatives.
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *SCALES)
UNCHANGED = {"F16", "Q8_0", "Q4_0", "Q6_K"}


def random_weights(kind: str, rows: int, columns: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The tensor as the file holds it, and the numbers it stands for."""
    generator = numpy.random.default_rng(rows + columns)
    values = (generator.standard_normal((rows, columns)) * 0.05).astype(numpy.float32)
    type_ = gguf.GGMLQuantizationType[kind]
    if kind in SCALES:
        block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
        blocks = generator.integers(0, 256, (rows * columns // block, block_bytes), dtype=numpy.uint8)
        for at in SCALES[kind]:
            blocks[:, at : at + 2] = numpy.frombuffer(numpy.float16(0.0006).tobytes(), numpy.uint8)
        stored = blocks.reshape(rows, -1)
    else:
        stored = gguf.quantize(values, type_)
    return stored, gguf.dequantize(stored, type_)


def write_model(path: Path, kind: str) -> dict[str, numpy.ndarray]:
    """A llama of one layer whose matrices are of this type; the numbers they stand for."""
    writer = gguf.GGUFWriter(path, "llama")
    for key in ("embedding_length", "feed_forward_length"):
        writer.add_uint32(f"llama.{key}", WIDTH)
    for key, value in {"block_count": 1, "context_length": 64, "rope.dimension_count": WIDTH // 4}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_uint32("llama.vocab_size", VOCABULARY)
    writer.add_uint32("llama.attention.head_count", 4)
    writer.add_uint32("llama.attention.head_count_kv", 4)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a"] * VOCABULARY)
    matrices = {"token_embd": VOCABULARY, "output": VOCABULARY} | {
        f"blk.0.{name}": WIDTH
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down", "ffn_gate", "ffn_up")
    }
    values = {}
    for name, rows in matrices.items():
        stored, values[name] = random_weights(kind, rows, WIDTH)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=gguf.GGMLQuantizationType[kind])
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def tensors_of(path: Path) -> dict[str, tuple[str, numpy.ndarray]]:
    """Type and numbers of every tensor, as gguf-py reads them."""
    return {
        tensor.name.removesuffix(".weight"): (
            tensor.tensor_type.name,
            gguf.dequantize(tensor.data, tensor.tensor_type),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def rounding(values: numpy.ndarray) -> numpy.ndarray:
    """The largest error Q8_0 may make in each block: half a step, and the scale's own rounding to half precision.

    The last term is for scales so small that half precision holds them with fewer digits.
    """
    largest = numpy.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    return largest * (0.5 / 127 + 2**-11) + 127 * 2**-25


@pytest.mark.parametrize("kind", KINDS)
def test_rewritten_weights_are_within_the_rounding(kind: str, tmp_path: Path) -> None:
    values = write_model(tmp_path / "old.gguf", kind)
    ratios: list[float] = []
    rewrite([tmp_path / "old.gguf"], tmp_path / "new.gguf", ratios.append)
    found = tensors_of(tmp_path / "new.gguf")
    for name, before in values.items():
        type_, after = found[name]
        if kind in UNCHANGED:
            assert type_ == kind
            numpy.testing.assert_array_equal(after, before)
        elif kind in ("F32", "BF16"):
            assert type_ == "F16"
            numpy.testing.assert_array_equal(after, before.astype(numpy.float16))
        else:
            assert type_ == "Q8_0"
            assert (numpy.abs(after - before).reshape(-1, 32) <= rounding(before)).all()
    assert ratios[-1] == 1
    assert ratios == sorted(ratios)
    weights = sum(tensor.size_bytes for tensor in read_gguf(tmp_path / "new.gguf").tensors)
    assert weights == rewritten_bytes([tmp_path / "old.gguf"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"])
def test_openvino_reads_the_rewritten_weights_for_what_they_are(kind: str, tmp_path: Path) -> None:
    values = write_model(tmp_path / "old.gguf", kind)
    (tmp_path / "made").mkdir()
    said: list[Said] = []
    job = Job(sources=(str(tmp_path / "old.gguf"),), target=str(tmp_path / "made"), with_model=True)
    prepare(job, said.append)
    model = openvino.Core().read_model(tmp_path / "made" / "openvino_model.xml")
    found = matrices_of(model)
    for name in ("token_embd", "output", "blk.0.attn_v", "blk.0.ffn_down", "blk.0.ffn_gate"):
        before = values[name]
        worst = min(numpy.abs(after - before).max() for after in found if after.shape == before.shape)
        assert worst <= rounding(before).max(), f"{name} differs by {worst}"


def matrices_of(model: openvino.Model) -> list[numpy.ndarray]:
    """The weights of every matrix product and of the embedding, as the graph computes them."""
    found = []
    for node in model.get_ops():
        if node.get_type_name() in ("MatMul", "Gather"):
            output = node.input_value(1 if node.get_type_name() == "MatMul" else 0)
            shape = output.get_partial_shape()
            if shape.is_static and shape.rank == 2 and shape[1].get_length() == WIDTH:
                computed = openvino.Core().compile_model(
                    openvino.Model([output], [], "weights"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
                )
                found.append(computed([])[0].astype(numpy.float32))
    return found


def test_a_split_model_becomes_one_file(tmp_path: Path) -> None:
    values = write_model(tmp_path / "whole.gguf", "Q4_1")
    names = []
    for number, keeps in enumerate((True, False), start=1):
        path = tmp_path / f"part-{number}.gguf"
        names.append(path)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint32("llama.block_count", 1)
        for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors:
            if tensor.name.startswith("blk.0.ffn") == keeps:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    rewrite(names, tmp_path / "new.gguf", lambda _: None)
    assert values.keys() <= tensors_of(tmp_path / "new.gguf").keys()


def test_zeros_and_the_largest_weights_survive() -> None:
    weights = numpy.zeros((2, 64), numpy.float32)
    weights[1, :32] = numpy.linspace(-1, 1, 32, dtype=numpy.float32)
    read = gguf.dequantize(as_q8_0(weights), gguf.GGMLQuantizationType.Q8_0)
    assert not read[0].any()
    assert (numpy.abs(read - weights).reshape(-1, 32) <= rounding(weights)).all()


def test_widths_no_block_divides_become_f16() -> None:
    tensor = GgufTensor(name="t", shape=(40, 2), type="f32", offset=0, size_bytes=320)
    assert target_type(tensor) == "f16"
    vector = GgufTensor(name="t", shape=(40,), type="f16", offset=0, size_bytes=80)
    assert target_type(vector) == "f32"


def test_a_broken_file_is_refused_before_native_code_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    write_model(path, "Q8_0")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(SpecError, match="past the file"):
        rewrite([path], tmp_path / "new.gguf", lambda _: None)
