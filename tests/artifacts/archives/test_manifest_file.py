"""Manifests: old and new ones are read, names that are none are refused, and what is written is read back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives.manifest_file import (
    MAX_MANIFEST_BYTES,
    checked_manifest,
    decode_manifest,
    encode_manifest,
    name_from_url,
)
from argosy.core.errors import SpecError
from argosy.core.model_archive import ArchiveManifest, ArchiveModel

FILES = ("handler.py", "model.safetensors", "model.py", "requirements.txt", "model-config.yaml")


def checked(fields: Any, url: str = "t5-small.mar") -> ArchiveManifest:
    return checked_manifest(decode_manifest(json.dumps(fields).encode(), "t5.mar"), "t5.mar", url, FILES)


def test_the_manifest_of_the_current_archiver() -> None:
    manifest = checked(
        {
            "createdOn": "31/01/2024 10:20:30",
            "runtime": "python",
            "model": {
                "modelName": "t5-small",
                "serializedFile": "model.safetensors",
                "handler": "handler.py",
                "modelFile": "model.py",
                "modelVersion": "1.0",
                "requirementsFile": "requirements.txt",
                "configFile": "model-config.yaml",
            },
            "archiverVersion": "0.12.0",
        }
    )
    assert manifest.created_on == "31/01/2024 10:20:30"
    assert manifest.model == ArchiveModel(
        model_name="t5-small",
        serialized_file="model.safetensors",
        handler="handler.py",
        model_file="model.py",
        requirements_file="requirements.txt",
        config_file="model-config.yaml",
    )


def test_the_manifest_of_an_old_archiver() -> None:
    manifest = checked(
        {
            "specificationVersion": "1.0",
            "implementationVersion": "1.0",
            "modelServerVersion": "1.0",
            "license": None,
            "engine": {"engineName": "pytorch"},
            "model": {
                "modelName": "old",
                "modelVersion": 2.5,
                "handler": "handler:handle",
                "description": None,
                "extensions": {"batch_size": 4},
            },
        }
    )
    assert (manifest.runtime, manifest.model.model_version, manifest.model.handler) == (
        "python",
        "2.5",
        "handler:handle",
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("t5-small.mar", "t5_small"),
        ("https://host/models/my.net.v2.tar.gz", "my_net_v2"),
        ("https://host/models/net.mar?signature=x/y", "net"),
        ("store/resnet/", "resnet"),
        ("old.model", "old"),
    ],
)
def test_without_a_manifest_the_file_names_the_model(url: str, name: str) -> None:
    assert name_from_url(url) == name
    assert checked({}, url).model == ArchiveModel(model_name=name)
    assert checked({"model": None}, url).model.model_version == "1.0"


@pytest.mark.parametrize(
    "handler", ["", "handler.py", "handler", "handler.py:Translator", "handler:run", "base_handler"]
)
def test_every_form_of_a_handler_is_taken(handler: str) -> None:
    assert checked({"model": {"handler": handler}}).model.handler == handler


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"modelName": "../x"}, "modelName is '../x': must be"),
        ({"modelName": "%2e%2e"}, "modelName"),
        ({"modelName": "a\0b"}, "modelName"),
        ({"modelName": "CON"}, "modelName"),
        ({"modelName": "-rf"}, "modelName"),
        ({"modelName": "m" * 300}, "modelName"),
        ({"modelName": "ｔ５"}, "modelName"),
        ({"modelVersion": "../1"}, "modelVersion"),
        ({"modelVersion": ""}, "modelVersion"),
        ({"modelVersion": "1 0"}, "modelVersion"),
        ({"modelVersion": "9" * 65}, "modelVersion"),
        ({"serializedFile": "../../etc/passwd"}, "serializedFile is '../../etc/passwd': is not a file of the archive"),
        ({"requirementsFile": "/etc/passwd"}, "requirementsFile"),
        ({"configFile": "gone.yaml"}, "configFile"),
        ({"handler": "gone.py"}, "not a file of the archive"),
        ({"handler": "../handler.py"}, "not a file of the archive"),
        ({"handler": "handler.py:__import__('os')"}, "handler.py:FUNCTION|FILE.py:FUNCTION"),
        ({"handler": "handler.py:"}, "FILE.py"),
        ({"handler": "a/b"}, "neither a file"),
        ({"handler": ["handler.py"]}, "Expected `str`, got `array`"),
        ({"modelName": True}, "Expected `str`, got `bool`"),
    ],
)
def test_d06_names_that_are_no_names_are_refused(model: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        checked({"model": model})
    assert "t5.mar" in caught.value.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "is a list"),
        (b'{"model": 3}', "Expected `object`"),
        (b'{"runtime": "LSP"}', r"C\+\+ workers are not run"),
        (b'{"runtime": "perl"}', "there is no such runtime"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "may have"),
        (b"\xff\xfe{", "not JSON"),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        checked_manifest(decode_manifest(content, "t5.mar"), "t5.mar", "t5.mar", FILES)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert decode_manifest(b'\xef\xbb\xbf{"runtime": "python3"}', "t5.mar").runtime == "python3"


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(
    st.builds(
        ArchiveManifest,
        created_on=st.text(max_size=30),
        archiver_version=st.text(max_size=20),
        model=st.builds(ArchiveModel, model_name=NAMES, model_version=NAMES, handler=NAMES, service_envelope=NAMES),
    )
)
def test_what_is_written_is_read_back(manifest: ArchiveManifest) -> None:
    assert decode_manifest(encode_manifest(manifest), "x.mar") == manifest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MODEL = st.dictionaries(st.sampled_from(["modelName", "modelVersion", "handler", "serializedFile", "x"]), JSON)


@settings(max_examples=100)
@given(st.fixed_dictionaries({}, optional={"runtime": JSON, "createdOn": JSON, "model": JSON | MODEL}))
def test_d06_any_json_gives_a_manifest_or_a_spec_error(fields: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        checked(fields)
