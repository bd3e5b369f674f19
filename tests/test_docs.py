"""What is public is documented: flags, spec fields, metrics, error codes, dependencies; and the two READMEs agree."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.cli.main import COMMANDS
from argosy.cli.reference import reference
from argosy.cli.serve import serve_spec
from argosy.cli.service_file import parse_services
from argosy.cli.up import up_spec
from argosy.core import errors
from argosy.core.control_spec import ControlSpec, GatewaySpec, UpSpec
from argosy.core.engine import EngineSettings
from argosy.core.inference_service import (
    CachePolicy,
    GatewayPolicy,
    InferenceServiceSpec,
    PromotionPolicy,
    RevisionTemplate,
    RolloutPolicy,
    ShadowPolicy,
    StickyPolicy,
)
from argosy.core.model_archive import SequenceSettings, VersionSettings
from argosy.core.network import NetworkSettings
from argosy.core.resources import Device, Resources
from argosy.core.scaling import ScalingPolicy, Slo
from argosy.core.serve_spec import ServeSpec
from argosy.core.torchserve_spec import (
    HandlerDefaults,
    SequenceHeaders,
    StartVersion,
    TorchServeMetricsSpec,
    TorchServeSpec,
)
from argosy.core.web_spec import LimitsSpec, WebSpec
from argosy.core.workload import Probe, Workload
from argosy.observe.metrics import METRICS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src"
SPECS = (
    ServeSpec, LimitsSpec, EngineSettings, NetworkSettings, ControlSpec, GatewaySpec, UpSpec, InferenceServiceSpec,
    RevisionTemplate, Resources, ScalingPolicy, Slo, RolloutPolicy, PromotionPolicy, GatewayPolicy, StickyPolicy,
    ShadowPolicy, CachePolicy, Workload, Probe, Device, TorchServeSpec, StartVersion, HandlerDefaults,
    SequenceHeaders, TorchServeMetricsSpec, VersionSettings, SequenceSettings,
)  # fmt: skip
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def all_docs() -> str:
    return "\n".join(page.read_text() for page in DOCS.glob("*.md"))


def fences(text: str) -> list[str]:
    return re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> Iterator[str]:
    for fence in fences(text):
        if fence.startswith("```sh"):
            yield from fence.splitlines()[1:-1]


def errors_below(root: type[errors.ArgosyError]) -> Iterator[type[errors.ArgosyError]]:
    yield root
    for leaf in root.__subclasses__():
        yield from errors_below(leaf)


def test_every_command_and_flag_is_documented() -> None:
    written = (DOCS / "cli.md").read_text()
    assert written == reference(), "docs/cli.md is behind the commands: run `make docs`"


def documents() -> list[str]:
    """The YAML files that docs/configuration.md shows: of a server, of a service, of the cloud."""
    return re.findall(r"^```yaml\n(.*?)^```", (DOCS / "configuration.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("spec", SPECS)
def test_every_spec_field_is_documented(spec: type[msgspec.Struct]) -> None:
    text = all_docs()
    shown = "\n".join([*documents(), *fences((DOCS / "torchserve.md").read_text())])
    missing = [
        name
        for name in spec.__struct_fields__
        if f"`{name}`" not in text and not re.search(rf"(^|[ {{]){name}:", shown, re.MULTILINE)
    ]
    assert not missing, f"no page of docs/ names the fields {missing} of {spec.__name__}"


def test_the_documented_configuration_is_every_field_with_its_default(tmp_path: Path) -> None:
    example, _, _ = documents()
    config = tmp_path / "serve.yaml"
    config.write_text(example)
    spec = serve_spec(config, {})
    assert spec == ServeSpec(model="smollm2")
    assert msgspec.yaml.decode(example).keys() == msgspec.to_builtins(spec, enc_hook=str).keys()
    for part in ("limits", "engine_settings", "network"):
        fields = msgspec.yaml.decode(example)[part]
        assert fields.keys() == set(getattr(spec, part).__struct_fields__)


def test_the_documented_service_is_every_field_with_its_default() -> None:
    _, example, _ = documents()
    (service,) = parse_services(example.encode(), "configuration.md")
    assert service.spec == InferenceServiceSpec(template=RevisionTemplate(model="smollm2"))
    assert paths(msgspec.yaml.decode(example)["spec"]) == paths(msgspec.to_builtins(service.spec)) - {
        "template.engine_settings.cache_dir"
    }


def test_the_documented_cloud_is_every_field_of_its_own_with_its_default(tmp_path: Path) -> None:
    _, _, example = documents()
    config = tmp_path / "up.yaml"
    config.write_text(example)
    assert up_spec(config, {}) == UpSpec()
    shared = set(WebSpec.__struct_fields__) - {"port"}
    shown = msgspec.yaml.decode(example)
    for role, spec in (("control", ControlSpec), ("gateway", GatewaySpec)):
        assert shown[role].keys() == set(spec.__struct_fields__) - shared
    assert shown.keys() == set(UpSpec.__struct_fields__)


def paths(fields: dict[str, Any], above: str = "") -> set[str]:
    """`scaling.slo.ttft_seconds` and all others."""
    found = set()
    for name, value in fields.items():
        found |= paths(value, f"{above}{name}.") if isinstance(value, dict) and value else {f"{above}{name}"}
    return found


def test_every_metric_is_documented() -> None:
    text = (DOCS / "metrics.md").read_text()
    missing = [metric.exposed_name for metric in METRICS if f"`{metric.exposed_name}`" not in text]
    assert not missing


def test_every_error_code_is_documented() -> None:
    text = (DOCS / "errors.md").read_text()
    # Rooms that are not loaded here may have errors of their own, so the source is asked as well.
    sources = "".join(file.read_text() for file in SOURCE.rglob("*.py"))
    written = set(re.findall(r'^    code = "(\w+)"$', sources, re.MULTILINE))
    codes = written | {error.code for error in errors_below(errors.ArgosyError)}
    assert "bench_failed" in codes
    assert not {code for code in codes if f"`{code}`" not in text}


def test_every_dependency_has_its_purpose() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=!~ ;]", line)[0] for group in groups for line in group} - {"argosy"}
    documented = set(re.findall(r"^\| ([a-z0-9-]+) \|", (DOCS / "dependencies.md").read_text(), flags=re.MULTILINE))
    assert documented - {"package"} == names


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def test_the_readmes_are_in_step() -> None:
    english, chinese = (ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text()
    assert fences(english) == fences(chinese)
    for pattern in (r"^#+ ", r"^\| ", r"^- "):
        assert len(re.findall(pattern, english, re.MULTILINE)) == len(re.findall(pattern, chinese, re.MULTILINE))
    commands = re.compile(r"`(argosy [^`]+)`")
    assert commands.findall(english) == commands.findall(chinese)


def test_readme_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    lines = [*shell_lines(text), *re.findall(r"`(argosy [^`]+)`", text)]
    used = {line.split()[1] for line in lines if line.startswith("argosy ")} - {"--help"}
    assert used == set(COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {line.split()[1] for line in shell_lines(text) if line.startswith("make ")} <= targets


def test_python_in_the_readme_compiles() -> None:
    programs = [fence for fence in fences((ROOT / "README.md").read_text()) if fence.startswith("```python")]
    assert programs
    for program in programs:
        compile("\n".join(program.splitlines()[1:-1]), "README.md", "exec")
