"""config.properties, `TS_` variables and flags become one spec; nothing in it is passed over in silence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.cli.serve import serve_spec
from argosy.cli.torchserve_options import torchserve_spec
from argosy.core.errors import SpecError
from argosy.core.torchserve_spec import (
    Address,
    Compat,
    MetricsSet,
    StartVersion,
    TorchServeSpec,
    check_torchserve_spec,
)
from argosy.core.web_spec import WebSpec
from argosy.server.torchserve.config_keys import KEYS, Treatment
from argosy.server.torchserve.configuration import Configuration, read_configuration

# The GKE tutorial's own file.
SAMPLE = """
inference_address=http://0.0.0.0:8080
management_address=http://0.0.0.0:8081
metrics_address=http://0.0.0.0:8082
metrics_mode=prometheus
number_of_netty_threads=32
job_queue_size=1000
install_py_dep_per_model=true
model_store=/home/model-server/model-store
load_models=all
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the surroundings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TS_CONFIG_FILE", raising=False)


def read(text: str, variables: dict[str, str] | None = None) -> Configuration:
    file = Path("given.properties")
    file.write_text(text)
    return read_configuration(file, None, variables or {})


def spec_of(text: str, **flags: Any) -> TorchServeSpec:
    file = Path("given.properties")
    file.write_text(text)
    spec, _ = torchserve_spec(None, {"torchserve": file, "no_config_snapshots": True, **flags})
    return spec


def test_the_tutorials_own_file_is_taken_as_it_is() -> None:
    spec = spec_of(SAMPLE)
    assert spec.inference == Address("0.0.0.0", 8080)
    assert (spec.management.port, spec.metrics.port) == (8081, 8082)
    assert spec.version_defaults.job_queue_size == 1000
    assert spec.load_models == ("all",)
    assert spec.model_store == Path("/home/model-server/model-store")
    assert not spec.may_change_models, "nobody showed a key, and anybody can reach the port"


def test_what_has_no_effect_is_said_with_its_line() -> None:
    notes = read(SAMPLE).notes
    assert [re.findall(r":(\d+): (\w+) is (\w+)", note)[0] for note in notes] == [
        ("6", "number_of_netty_threads", "ignored"),
        ("8", "install_py_dep_per_model", "mapped"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("job_queue_sise=3", "given.properties:1: no key is called 'job_queue_sise': did you mean 'job_queue_size'"),
        ("job_queue_size=many", "job_queue_size=many must be a whole number, at least 1"),
        ("decode_input_request=yes", "must be true or false"),
        ("inference_address=https://0.0.0.0:8443", "TLS"),
        ("inference_address=unix:/tmp/x y", "must be an address such as http://127.0.0.1:8080"),
        ("private_key_file=key.pem", "private_key_file is refused: TLS is not served here"),
        ("cors_allowed_origin=*", "must name the web origins"),
        ("allowed_urls=https://.*\\.example\\.com/.*", "no plain beginning of URLs"),
        ("models={", "must be JSON such as"),
        ('models={"m":{"1.0":{}}}', "marName"),
        ('models={"m":{"1.0":{"marName":"m","minWorker":1}}}', "minWorker"),
        ('models={"m":{"1.0":{"marName":"m","parallelLevel":2}}}', "parallelLevel"),
    ],
)
def test_what_cannot_be_done_ends_the_start_with_a_remedy(line: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(line)
    assert said in caught.value.message


def test_every_key_says_what_becomes_of_it() -> None:
    silent = [key for key, known in KEYS.items() if not known.note and known.treatment is not Treatment.TAKEN]
    assert not silent


def test_each_setting_reaches_its_field() -> None:
    spec = spec_of(
        "inference_address=127.0.0.1:9001\nmanagement_address=http://[::1]\n"
        "default_workers_per_model=3\ndefault_response_timeout=7\ndefault_startup_timeout=8\n"
        "max_request_size=1000\nmax_response_size=2000\nunregister_model_timeout=9\n"
        "service_envelope=json\ndefault_service_handler=text_classifier\ndecode_input_request=false\n"
        "limit_max_image_pixels=false\nts_header_key_sequence_id=x-seq\nts_open_inference_protocol=oip\n"
        "enable_metrics_api=false\nmetric_time_interval=5\ndisable_system_metrics=true\n"
        "model_metrics_auto_detect=true\nenable_model_api=true\ncors_allowed_origin=https://app.example\n"
        "allowed_urls=https://models.example.com/mar/.*,file://.*|http(s)?://.*\nmodel_store=here\n"
    )
    assert (spec.host, spec.port, spec.management) == ("127.0.0.1", 9001, Address("::1", 8081))
    assert spec.workers_per_model == 3
    assert spec.version_defaults.response_timeout_seconds == 7
    assert spec.version_defaults.startup_timeout_seconds == 8
    assert (spec.limits.max_body_bytes, spec.max_response_bytes, spec.unregister_timeout_seconds) == (1000, 2000, 9)
    assert msgspec.structs.astuple(spec.handlers) == ("text_classifier", "json", False, False)
    assert (spec.sequence_headers.sequence_id, spec.sequence_headers.start) == ("x-seq", "ts_request_sequence_start")
    metrics = spec.metrics_settings
    assert (metrics.enabled, metrics.auto_detect, metrics.system, metrics.system_interval_seconds) == (
        False, True, False, 5.0,
    )  # fmt: skip
    assert spec.open_inference
    assert spec.enable_model_api
    assert spec.allowed_origins == ("https://app.example",)
    assert spec.allow_sources == ("https://models.example.com/mar/",)


def test_models_name_versions_and_how_to_run_them() -> None:
    spec = spec_of(
        'models={\\\n  "t5": {\\\n    "1.0": {"marName": "t5.mar", "defaultVersion": true, "minWorkers": 4,\\\n'
        '      "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 50, "responseTimeout": 9, "parallelLevel": 1}}}'
    )
    assert spec.models == {
        "t5": {
            "1.0": StartVersion(
                archive="t5.mar", is_default=True, min_workers=4, max_workers=4, batch_size=4,
                max_batch_delay_seconds=0.05, response_timeout_seconds=9.0,
            )
        }
    }  # fmt: skip


def test_a_flag_wins_over_the_file_and_a_variable_over_both() -> None:
    text = "enable_envvars_config=true\nload_models=a.mar\ndefault_workers_per_model=1\nmodel_store=x\n"
    flags = {"load_models": ["b.mar", "c=d.mar,ALL"], "compat": "strict", "metrics_set": "0.7"}
    spec = spec_of(text, **flags)
    assert spec.load_models == ("b.mar", "c=d.mar", "all")
    assert (spec.compat, spec.metrics_settings.label_set) == (Compat.STRICT, MetricsSet.OLD)
    found = read(text, {"TS_DEFAULT_WORKERS_PER_MODEL": "5", "TS_UNKNOWN": "1", "PATH": "/bin"})
    assert found.overrides == {"workers_per_model": 5}


def test_variables_of_ts_count_only_where_the_file_says_so() -> None:
    assert read("load_models=none", {"TS_JOB_QUEUE_SIZE": "5"}).overrides == {}


def test_a_second_archive_of_models_may_stand_alone() -> None:
    """`torchserve --models a.mar b=b.mar c.mar` takes any number; all but the first come to us as models."""
    spec = spec_of("", load_models=["a.mar"], model="b=b.mar", more_models=["c.mar"])
    assert spec.load_models == ("a.mar", "b=b.mar", "c.mar")


def test_an_archive_where_a_model_stands_is_told_the_way() -> None:
    with pytest.raises(SpecError, match=r"--model-store models --load-models t5\.mar"):
        serve_spec(None, {"model": "models/t5.mar"})


def test_flags_of_an_engine_are_refused_beside_archives() -> None:
    with pytest.raises(SpecError, match="--max-num-seqs is for one model behind the OpenAI API"):
        spec_of("", max_num_seqs=4)


def test_a_file_is_looked_for_where_torchserve_looks(tmp_path: Path) -> None:
    snapshots = tmp_path / "logs" / "config"
    assert read_configuration(None, snapshots, {}).source is None
    Path("config.properties").write_text("job_queue_size=1")
    assert read_configuration(None, snapshots, {}).source == Path("config.properties")
    snapshots.mkdir(parents=True)
    last = snapshots / "20240131102030123-shutdown.cfg"
    last.write_text('model_snapshot={"name":"s","models":{"m":{"1.0":{"marName":"m.mar","minWorkers":2}}}}')
    restored = read_configuration(None, snapshots, {})
    assert restored.source == last
    assert restored.fields["models"]["m"]["1.0"]["min_workers"] == 2
    given = tmp_path / "given"
    given.write_text("")
    assert read_configuration(given, snapshots, {}).source == given
    named = read_configuration(given, snapshots, {"TS_CONFIG_FILE": "config.properties"})
    assert (named.source, len(named.notes)) == (Path("config.properties"), 1)


def test_a_snapshot_finds_the_model_store_that_a_flag_named(tmp_path: Path) -> None:
    Path("store").mkdir()
    Path("given.properties").write_text("model_store=/nowhere\njob_queue_size=7")
    flags = {"torchserve": Path("given.properties"), "model_store": Path("store"), "no_config_snapshots": True}
    _, properties = torchserve_spec(None, flags)
    assert properties == {"model_store": str(tmp_path / "store"), "job_queue_size": "7"}


def test_d16_addresses_of_flags_do_not_open_the_server(tmp_path: Path) -> None:
    spec, _ = torchserve_spec(None, {"model_store": tmp_path, "host": "0.0.0.0", "no_config_snapshots": True})
    with pytest.raises(SpecError, match="--insecure"):
        check_torchserve_spec(spec)


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({}, True),
        ({"management": Address("0.0.0.0", 8081), "insecure": True}, False),
        ({"management": Address("0.0.0.0", 8081), "api_keys": ("a-long-key",)}, True),
        ({"management": Address("0.0.0.0", 8081), "insecure": True, "enable_model_api": True}, True),
        ({"enable_model_api": False}, False),
    ],
)
def test_models_are_changed_from_this_machine_or_with_a_key(fields: dict[str, Any], may: bool) -> None:
    assert TorchServeSpec(**fields).may_change_models is may


def test_the_migration_page_has_every_key_and_flag() -> None:
    """What the reader knows and what the page tells are the same, treatment included."""
    page = (Path(__file__).parents[3] / "docs" / "migrating-from-torchserve.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| (taken|mapped|ignored|refused) \|", page, re.MULTILINE)
    told = {key: treatment for keys, treatment in rows for key in re.findall(r"`(\w+)`", keys)}
    assert told == {key: known.treatment.value for key, known in KEYS.items()}


def test_the_documented_fields_are_all_of_them_with_their_defaults() -> None:
    page = (Path(__file__).parents[3] / "docs" / "torchserve.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Path("fields.yaml").write_text(shown)
    spec, _ = torchserve_spec(Path("fields.yaml"), {"no_config_snapshots": True})
    assert spec == TorchServeSpec()
    shared = {name for name in WebSpec.__struct_fields__ if name != "limits"}
    assert set(msgspec.yaml.decode(shown)) == set(TorchServeSpec.__struct_fields__) - shared
