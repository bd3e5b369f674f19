"""What an archive asks for comes in when somebody prepares it, locked by hash, and never otherwise (D-14)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from handmade import files, folder, manifest, zipped
from hypothesis import given
from hypothesis import strategies as st

from argosy.artifacts.archives.environments import Preparation, Prepared, find_environment
from argosy.artifacts.archives.opening import open_archive
from argosy.artifacts.archives.package_lock import checked_lock, lock_text
from argosy.artifacts.archives.pip_process import PackageSources
from argosy.artifacts.archives.reading import read_archive
from argosy.artifacts.archives.requirements import environment_key, required_packages
from argosy.core.errors import ArtifactError, DeadlineExceeded, SpecError

WHERE = "echo.mar: requirements"


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ("", ()),
        ("# only words\n\n   \n", ()),
        ("numpy\n", ("numpy",)),
        ("transformers >= 4.30 , < 5  # why\n", ("transformers >= 4.30 , < 5",)),
        ("torch==2.1.0+cpu", ("torch==2.1.0+cpu",)),
        ("sentencepiece[extra1,extra2]~=0.2", ("sentencepiece[extra1,extra2]~=0.2",)),
        ("a!=1.0,>=0.5 ; python_version < '3.12'", ("a!=1.0,>=0.5 ; python_version < '3.12'",)),
        ("a==1 \\\n  --hash=sha256:" + "0" * 64, ("a==1 --hash=sha256:" + "0" * 64,)),
        ("./own-1.0-py3-none-any.whl\n", ("./own-1.0-py3-none-any.whl",)),
    ],
)
def test_what_a_requirements_file_may_say(text: str, packages: tuple[str, ...]) -> None:
    assert required_packages(text, WHERE, {"own-1.0-py3-none-any.whl"}) == packages


@pytest.mark.parametrize(
    "line",
    [
        "--index-url http://evil.example/simple",
        "-i http://evil.example",
        "--extra-index-url=http://evil.example",
        "--trusted-host evil.example",
        "-e git+https://evil.example/x",
        "-r other.txt",
        "-c constraints.txt",
        "--find-links /tmp",
        "--pre",
        "--no-binary :all:",
        "evil @ https://evil.example/evil.whl",
        "https://evil.example/evil.whl",
        "git+https://evil.example/x#egg=x",
        "file:///tmp/evil.whl",
        "./gone-1.0-py3-none-any.whl",
        "../own-1.0-py3-none-any.whl",
        "/tmp/own.whl",
        "./directory",
        "numpy --install-option=x",
        "numpy --global-option=x",
        "numpy ; python_version > '3' --global-option=x",
        "numpy ; python_version > '3'\t--config-settings=a=b",
        "numpy==1 --hash=md5:00",
        "numpy; os_name == 'x' @ https://evil.example",
        "$(touch /tmp/x)",
        "${HOME}",
        "-",
        "numpy numpy",
        "numpy" + " <1 " * 100 + "|",
        "numpy" + "<1 , " * 100 + "|",
        "n" + "-" * 200,
    ],
)
def test_d14_a_requirements_file_may_not_steer_pip(line: str) -> None:
    with pytest.raises(SpecError, match="line 2 is") as caught:
        required_packages(f"numpy\n{line}\n", WHERE, {"own-1.0-py3-none-any.whl"})
    assert caught.value.message.startswith(WHERE)


@given(st.text(alphabet="ab-=<>.[]@:/\\#;,~! '$\n\t", max_size=60))
def test_d14_what_passes_begins_with_a_name(text: str) -> None:
    with contextlib.suppress(SpecError):
        for each in required_packages(text, WHERE):
            assert each[0].isalnum()
            assert not {"@", "/", ":", "$"} & set(each)


def test_the_key_depends_on_what_is_asked_for_and_not_on_the_order() -> None:
    assert environment_key(("a==1", "b")) == environment_key(("b", "a==1"))
    assert environment_key(("a==1",)) != environment_key(("a==2",))


def wheel(directory: Path, name: str, version: str, needs: str = "") -> Path:
    """A wheel with one module that says its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    contents = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*contents, f"{info}/RECORD"))
    path = directory / f"{name}-{version}-py3-none-any.whl"
    directory.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (*contents.items(), (f"{info}/RECORD", record)):
            archive.writestr(file, text)
    return path


def archive_asking(path: Path, requirements: str, **more: bytes) -> Path:
    contents = files(requirements__txt=requirements.encode(), **more)
    contents["MAR-INF/MANIFEST.json"] = manifest(requirementsFile="requirements.txt")
    return zipped(path, contents)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, and no other place packages could come from."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    wheel(tmp_path / "wheels", "argosy_test_upper", "1.2", needs="argosy-test-lower>=1")
    wheel(tmp_path / "wheels", "argosy_test_lower", "1.0")
    wheel(tmp_path / "wheels", "argosy_test_lower", "2.0")
    return tmp_path / "wheels"


def preparation(path: Path, wheels: Path) -> Preparation:
    sources = PackageSources(find_links=(str(wheels),), is_offline=True)
    return Preparation(read_archive(path), path.parent / "environments", sources)


def test_d14_preparing_locks_installs_and_is_then_found(tmp_path: Path, wheels: Path) -> None:
    own = wheel(tmp_path / "own", "argosy_test_own", "0.1").read_bytes()
    path = archive_asking(
        tmp_path / "echo.mar",
        "argosy-test-upper==1.2\nmsgspec  # is here already\n./argosy_test_own-0.1-py3-none-any.whl\n",
        **{"argosy_test_own-0__1-py3-none-any__whl": own},
    )
    prepared = preparation(path, wheels).prepare()
    assert isinstance(prepared, Prepared)
    assert not prepared.was_there
    assert {name.replace("_", "-"): version for name, version in prepared.packages.items()} == {
        "argosy-test-upper": "1.2",
        "argosy-test-lower": "2.0",
        "argosy-test-own": "0.1",
    }
    digest = hashlib.sha256((wheels / "argosy_test_lower-2.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert any(line.endswith(f"==2.0 --hash=sha256:{digest}") for line in prepared.lock.splitlines())
    assert "# msgspec" in prepared.lock
    archive = open_archive(path, tmp_path / "store", url="echo.mar", environments=tmp_path / "environments")
    assert archive.environment == prepared.directory
    assert (archive.environment / "argosy_test_lower.py").read_text() == "VERSION = '2.0'\n"
    assert not list(archive.environment.glob("*.pth"))
    assert not list((tmp_path / "environments").glob(".prepare-*"))
    again = preparation(path, tmp_path / "nowhere").prepare()
    assert again is not None
    assert again.was_there
    (prepared.directory / "argosy_test_lower.py").unlink()
    anew = preparation(path, wheels).prepare(anew=True)
    assert anew == prepared
    assert (prepared.directory / "argosy_test_lower.py").exists()
    # A lock installs what it says, also where a resolver would choose otherwise.
    older = (wheels / "argosy_test_lower-1.0-py3-none-any.whl").read_bytes()
    kept = [line for line in prepared.lock.splitlines() if "lower" not in line]
    lock = "\n".join([*kept, f"argosy-test-lower==1.0 --hash=sha256:{hashlib.sha256(older).hexdigest()}"])
    pinned = preparation(path, wheels).prepare(lock)
    assert pinned is not None
    assert (pinned.directory / "argosy_test_lower.py").read_text() == "VERSION = '1.0'\n"


def test_an_environment_that_somebody_else_made_meanwhile_stays(tmp_path: Path, wheels: Path) -> None:
    path = archive_asking(tmp_path / "echo.mar", "argosy-test-lower\n")
    sources = PackageSources(find_links=(str(wheels),), is_offline=True)
    others: list[Path] = []

    def meanwhile(_: str) -> None:
        if not others:
            others.append(tmp_path)
            prepared = preparation(path, wheels).prepare()
            assert prepared is not None
            others.append(prepared.directory / "in_use.py")
            others[-1].touch()

    mine = Preparation(read_archive(path), tmp_path / "environments", sources, meanwhile).prepare()
    assert mine is not None
    assert others[-1].parent == mine.directory
    assert others[-1].exists()


@pytest.mark.parametrize("needs", ["evil @ file://SOURCE", "evil[x]@https://evil.example/x.zip ; os_name != 'x'"])
def test_d14_a_wheel_of_the_archive_leads_pip_nowhere(tmp_path: Path, wheels: Path, needs: str) -> None:
    """pip builds what such a link leads to, which runs its code, whatever it is told about building and indexes."""
    source = folder(
        tmp_path / "source",
        {
            "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n',
            "b.py": f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode(),
        },
    )
    own = wheel(tmp_path / "own", "argosy_test_own", "0.1", needs=needs.replace("SOURCE", str(source))).read_bytes()
    asked = "./argosy_test_own-0.1-py3-none-any.whl\n"
    path = archive_asking(tmp_path / "echo.mar", asked, **{"argosy_test_own-0__1-py3-none-any__whl": own})
    with pytest.raises(SpecError, match="names packages, not where they come from"):
        preparation(path, wheels).prepare()
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "environments").iterdir())


def test_d14_what_cannot_be_met_is_told_and_leaves_nothing(tmp_path: Path, wheels: Path) -> None:
    path = archive_asking(tmp_path / "echo.mar", "argosy-test-gone==3\n")
    with pytest.raises(ArtifactError, match=r"echo.mar cannot be met.*argosy-test-gone"):
        preparation(path, wheels).lock()
    assert not list((tmp_path / "environments").iterdir())
    with pytest.raises(DeadlineExceeded, match="--timeout"):
        Preparation(read_archive(path), tmp_path / "environments", PackageSources(), timeout_seconds=0).lock()


def test_nothing_asked_for_is_nothing_to_prepare(tmp_path: Path) -> None:
    path = archive_asking(tmp_path / "echo.mar", "# nothing\n")
    assert preparation(path, tmp_path).prepare() is None
    assert find_environment(path, "# nothing\n", (), tmp_path) is None


def test_what_is_here_anyway_needs_no_preparing(tmp_path: Path) -> None:
    here = importlib.metadata.version("msgspec")
    for text in ("msgspec", f"msgspec == {here}", "Prometheus_Client\nmsgspec"):
        assert find_environment(tmp_path / "echo.mar", text, (), tmp_path) is None
    for text in (
        "msgspec==0.0.1",
        "msgspec[x]",
        "argosy-test-gone",
        "msgspec>=0.1",
        f"msgspec=={here};python_version>'3'",
    ):
        with pytest.raises(SpecError, match=r"`argosy archive prepare \S+echo\.mar --store \S+`"):
            find_environment(tmp_path / "echo.mar", f"msgspec\n{text}", (), tmp_path)


def test_sources_are_arguments_of_pip() -> None:
    sources = PackageSources(index_url="https://i", extra_index_urls=("https://e",), find_links=("w",), is_offline=True)
    assert sources.arguments() == [
        *("--index-url", "https://i", "--extra-index-url", "https://e", "--find-links", "w", "--no-index"),
        *("--only-binary", ":all:"),
    ]
    assert PackageSources(allows_building=True).arguments() == []


@pytest.mark.parametrize(
    "line", ["numpy", "numpy==1", "numpy>=1 --hash=sha256:" + "0" * 64, "-r x", "a @ https://h/a.whl"]
)
def test_d14_a_lock_must_pin_version_and_hash(line: str) -> None:
    with pytest.raises(SpecError, match="lock"):
        checked_lock(line, ())


def test_d14_a_package_without_a_hash_is_not_locked() -> None:
    item = {"metadata": {"name": "x", "version": "1"}, "download_info": {"url": "git+https://h/x"}}
    with pytest.raises(ArtifactError, match="no hash for x"):
        lock_text({"install": [item]}, ("x",))
