"""Tensors out of the pickles PyTorch writes, without PyTorch and without running what a pickle asks for (D-04).

A pickle is a program for a small machine whose only way to the outside is `find_class`. Here that knows a dozen names,
and each stands for something inert: a type of numbers, or "a tensor of this shape over those bytes". Any other name
ends the reading, with the name. The numbers themselves are no pickle: they lie beside it, as members of a zip
(PyTorch >= 1.6) or after it (before), and are found by offset in the mapped file, so no weight is copied to be read.

Source: torch/serialization.py (`_save`, `_legacy_save`), torch/_utils.py (`_rebuild_tensor_v2`, `_v3`).
"""

from __future__ import annotations

import io
import mmap
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from argosy.artifacts.safetensors import DTYPE_BITS
from argosy.core.errors import SpecError

MAX_PICKLE_BYTES = 256 * 2**20
MAX_DIMENSIONS = 8
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Source: torch/storage.py; the types safetensors has too.
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "UntypedStorage": "U8",
}
_DTYPES: Mapping[str, str] = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
# Where checkpoints of training frameworks keep the weights among other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


class StorageType(msgspec.Struct, frozen=True, kw_only=True):
    """A class of storages, or a dtype, as what safetensors calls it."""

    dtype: str


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers in the file. num_elements: as the pickle declares them."""

    key: str
    dtype: str
    num_elements: int


class TensorView(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor: `shape` elements of `storage`, from `offset`, `strides` apart; both in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """The product of the shape."""
        product = 1
        for size in self.shape:
            product *= size
        return product


class SavedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of PyTorch holds. storages: key -> where its bytes begin and how many there are.

    dropped: names of what is no tensor, and is left behind.
    """

    tensors: dict[str, TensorView]
    storages: dict[str, tuple[int, int]]
    dropped: tuple[str, ...]


class _Inert:
    """A callable that a pickle may call: without attributes it could set, giving values it cannot call."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __setattr__(self, name: str, value: object) -> None:
        raise SpecError("the pickle changes what it may only call: it is hostile")

    def __call__(self, *arguments: object) -> Any:
        return self._build(*arguments)


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> TensorView:
    """`_rebuild_tensor_v2`, and the older form with fewer arguments."""
    if not isinstance(storage, Storage):
        raise SpecError("a tensor of the pickle has no storage: the file is damaged or hostile")
    sizes = (*_sizes(shape), *_sizes(strides), *_sizes((offset,)))
    if len(_sizes(shape)) != len(_sizes(strides)) or len(sizes) > 2 * MAX_DIMENSIONS + 1:
        raise SpecError("a tensor of the pickle has an impossible shape: the file is damaged or hostile")
    return TensorView(
        storage=storage, dtype=storage.dtype, offset=sizes[-1], shape=_sizes(shape), strides=_sizes(strides)
    )


def _tensor_v3(*arguments: object) -> TensorView:
    """`_rebuild_tensor_v3`: bytes without a type, and the type as the seventh argument."""
    kind = arguments[6] if len(arguments) > 6 else None
    if not isinstance(kind, StorageType):
        raise SpecError("a tensor of the pickle has no type: the file is damaged or hostile")
    return msgspec.structs.replace(_tensor(*arguments[:4]), dtype=kind.dtype)


def _sizes(values: object) -> tuple[int, ...]:
    if isinstance(values, list | tuple) and all(type(value) is int and 0 <= value < 2**48 for value in values):
        return tuple(values)
    raise SpecError("a tensor of the pickle has sizes that are no sizes: the file is damaged or hostile")


def _parameter(tensor: object, *_: object) -> object:
    return tensor


def _from_type(build: object, _type: object, arguments: object, *_: object) -> object:
    """`_rebuild_from_type_v2`: a parameter or tensor that carries attributes, which are left behind."""
    if not isinstance(build, _Inert) or not isinstance(arguments, tuple):
        raise SpecError("a tensor of the pickle is built by something else: the file is damaged or hostile")
    return build(*arguments)


_KNOWN: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Inert(lambda values=(): _sizes(values)),
    ("torch", "device"): _Inert(lambda *_: None),
    ("torch._utils", "_rebuild_tensor"): _Inert(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Inert(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Inert(_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): _Inert(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Inert(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Inert(_from_type),
    ("torch", "Tensor"): _Inert(_parameter),
    ("torch.nn.parameter", "Parameter"): _Inert(_parameter),
    **{("torch", name): StorageType(dtype=dtype) for name, dtype in {**_STORAGES, **_DTYPES}.items()},
    **{("torch.storage", name): StorageType(dtype=dtype) for name, dtype in _STORAGES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """The machine, with the dozen names it may know."""

    def find_class(self, module: str, name: str, /) -> Any:
        """What stands for a name. Raises: SpecError for any that is not of tensors."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            shown = f"{module}.{name}"[:120]
            raise SpecError(
                f"the pickle asks for {shown!r}, which is not part of a tensor: it holds more than weights, or is "
                "hostile; save the model's state dict alone"
            ) from None

    def persistent_load(self, pid: Any, /) -> Storage:
        """The storage a pickle points at. Raises: SpecError."""
        is_storage = isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"
        if not is_storage or not isinstance(pid[1], StorageType) or (len(pid) == 6 and pid[5] is not None):
            raise SpecError("the pickle points at something that is no storage: the file is damaged or hostile")
        return Storage(key=str(pid[2])[:200], dtype=pid[1].dtype, num_elements=_sizes((pid[4],))[0])


def read_weights(path: Path, mapped: mmap.mmap) -> SavedWeights:
    """The tensors of a file that `torch.save` wrote. mapped: its bytes.

    Raises: SpecError saying what it holds instead, or how it is damaged.
    """
    try:
        if mapped[:4] == b"PK\x03\x04":
            found, storages = _read_zip(path, mapped)
        else:
            found, storages = _read_legacy(mapped)
    except SpecError:
        raise
    except MemoryError as error:
        raise SpecError(
            f"{path.name} declares more than memory holds: it is no pickle of PyTorch, or hostile"
        ) from error
    # What the unpickler raises for bytes that are no pickle: nearly anything.
    except Exception as error:  # boundary: no fault of a stranger's file is one of ours
        shown = f"{type(error).__name__}: {error}"[:200]
        raise SpecError(f"{path.name} is no pickle of PyTorch ({shown}): fetch it again") from error
    tensors, dropped = _state_dict(path.name, found)
    for name, view in tensors.items():
        _check(name, view, storages)
    return SavedWeights(tensors=tensors, storages=storages, dropped=dropped)


def _read_zip(path: Path, mapped: mmap.mmap) -> tuple[object, dict[str, tuple[int, int]]]:
    with zipfile.ZipFile(path) as archive:
        program = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if program is None:
            raise SpecError(f"{path.name} is a zip without data.pkl: PyTorch did not write it")
        top = program.removesuffix("data.pkl")
        if f"{top}byteorder" in archive.namelist() and archive.read(f"{top}byteorder") != b"little":
            raise SpecError(f"{path.name} was written on a big-endian machine: convert it there")
        if archive.getinfo(program).file_size > MAX_PICKLE_BYTES:
            raise SpecError(f"{path.name}: its pickle is larger than {MAX_PICKLE_BYTES} bytes: it holds no weights")
        found = _TensorUnpickler(io.BytesIO(archive.read(program)), encoding="utf-8").load()
        storages = {}
        for info in archive.infolist():
            if info.filename.startswith(f"{top}data/"):
                if info.compress_type != zipfile.ZIP_STORED:
                    raise SpecError(f"{path.name}: {info.filename} is packed, PyTorch stores it: make the file again")
                storages[info.filename.removeprefix(f"{top}data/")] = (_data_begin(mapped, info), info.file_size)
    return found, storages


def _data_begin(mapped: mmap.mmap, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin. Source: PKZIP APPNOTE 4.3.7, the local file header."""
    name_size, extra_size = struct.unpack_from("<HH", mapped, info.header_offset + 26)
    return info.header_offset + 30 + int(name_size) + int(extra_size)


def _read_legacy(mapped: mmap.mmap) -> tuple[object, dict[str, tuple[int, int]]]:
    def load() -> Any:
        return _TensorUnpickler(mapped, encoding="utf-8").load()

    if load() != _LEGACY_MAGIC or load() != _LEGACY_PROTOCOL:
        raise SpecError("it is a pickle, but not one of PyTorch's: weights are saved with torch.save(state_dict)")
    about = load()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise SpecError("it was written on a big-endian machine: convert it there")
    found = load()
    storages: dict[str, tuple[int, int]] = {}
    keys = load()
    sizes = _element_bytes(found)
    for key in keys if isinstance(keys, list) else []:
        count = int.from_bytes(mapped.read(8), "little", signed=True)
        begin = mapped.tell()
        size = count * sizes.get(str(key), 0)
        if count < 0 or begin + size > len(mapped):
            raise SpecError("its numbers are cut short: fetch it again")
        storages[str(key)] = (begin, size)
        mapped.seek(begin + size)
    return found, storages


def _element_bytes(found: object) -> dict[str, int]:
    """Bytes per element of every storage the tensors point at."""
    pending, seen, sizes = [found], set[int](), dict[str, int]()
    while pending:
        each = pending.pop()
        if isinstance(each, TensorView):
            sizes[each.storage.key] = DTYPE_BITS[each.storage.dtype] // 8
        elif isinstance(each, dict | list | tuple) and id(each) not in seen:
            seen.add(id(each))
            pending += each.values() if isinstance(each, dict) else each
    return sizes


def _state_dict(file: str, found: object) -> tuple[dict[str, TensorView], tuple[str, ...]]:
    """The tensors by name, and the names of what else there is."""
    dropped: list[str] = []
    if isinstance(found, dict) and not any(isinstance(value, TensorView) for value in found.values()):
        inner = next((name for name in _WRAPPERS if isinstance(found.get(name), dict)), None)
        if inner is not None:
            dropped = [str(name)[:100] for name in found if name != inner]
            found = found[inner]
    if not isinstance(found, dict):
        raise SpecError(f"{file} holds a {type(found).__name__}, not a state dict: save model.state_dict() alone")
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, TensorView)}
    dropped += [str(name)[:100] for name in found if name not in tensors]
    if not tensors:
        raise SpecError(f"{file} holds no tensors by name: save model.state_dict() alone")
    return tensors, tuple(dropped)


def _check(name: str, view: TensorView, storages: Mapping[str, tuple[int, int]]) -> None:
    """Raises: SpecError unless every element of the tensor lies inside its storage."""
    if view.storage.key not in storages:
        raise SpecError(f"tensor {name[:120]!r} has no numbers in the file: fetch it again")
    _, size = storages[view.storage.key]
    last = view.offset + sum((count - 1) * stride for count, stride in zip(view.shape, view.strides, strict=True))
    item = DTYPE_BITS[view.dtype] // 8
    # The offset counts elements of the tensor's own type, also over bytes without a type.
    if view.num_elements and (last + 1) * item > size:
        raise SpecError(f"tensor {name[:120]!r} reaches beyond its {size} bytes of numbers: the file is damaged")
