"""The archived models of this server: names, their versions, and which version is meant when a client names none."""

from __future__ import annotations

import difflib

from argosy.core.errors import Conflict, Forbidden, ModelNotFound, NotFound
from argosy.serving.predictions.version import PredictionVersion

MAX_VERSIONS = 1_000  # of all models together: each has its series in the metrics, which keep as many apart.
_MAX_LISTED = 10
_MAX_COMPARED = 100  # A comparison takes 20 µs, and every wrong name costs as many.


class _Model:
    __slots__ = ("default", "versions")

    def __init__(self, first: PredictionVersion) -> None:
        self.default = first.version
        self.versions = {first.version: first}


class PredictionRegistry:
    """Names → versions. The first version of a name is its default until another is made so."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def get(self, name: str, version: str | None = None) -> PredictionVersion:
        """That version, or the default one. Raises: ModelNotFound, NotFound if only the version is unknown."""
        model = self._model(name)
        found = model.versions.get(model.default if version is None else version)
        if found is None:
            raise NotFound(_unknown_version(name, version or model.default, [*model.versions]))
        return found

    def versions(self, name: str) -> list[PredictionVersion]:
        """Every version of a model, as registered. Raises: ModelNotFound."""
        return [*self._model(name).versions.values()]

    def default(self, name: str) -> str:
        """The version clients get that name none. Raises: ModelNotFound."""
        return self._model(name).default

    def is_default(self, version: PredictionVersion) -> bool:
        """Whether it is what clients get that name no version."""
        model = self._models.get(version.name)
        return model is not None and model.default == version.version

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def names(self) -> list[str]:
        """Every model, by name."""
        return sorted(self._models)

    def all(self) -> list[PredictionVersion]:
        """Every version of every model, by name."""
        return [version for name in self.names() for version in self._models[name].versions.values()]

    def add(self, version: PredictionVersion) -> None:
        """Serve it under its name. Raises: Conflict if that version is there already, or as many as may be (D-35)."""
        model = self._models.get(version.name)
        if sum(len(each.versions) for each in self._models.values()) >= MAX_VERSIONS:
            raise Conflict(f"{MAX_VERSIONS} versions of models are registered, as many as may be: unregister one first")
        if model is None:
            self._models[version.name] = _Model(version)
        elif version.version in model.versions:
            raise Conflict(
                f"Model version {version.version} is already registered for model {version.name}: "
                "unregister it first, or give the archive another version"
            )
        else:
            model.versions[version.version] = version

    def set_default(self, name: str, version: str) -> None:
        """Make it the version clients get that name none. Raises: ModelNotFound, NotFound."""
        self._model(name).default = self.get(name, version).version

    def remove(self, version: PredictionVersion) -> None:
        """Serve it no more. Raises: Forbidden for the default version while there are others."""
        model = self._model(version.name)
        if version.version == model.default and len(model.versions) > 1:
            raise Forbidden(
                f"Cannot remove default version {version.version} for model {version.name}: "
                "make another version the default first"
            )
        self.take_back(version)

    def take_back(self, version: PredictionVersion) -> None:
        """Undo `add`, whatever else there is by now; the oldest other version becomes the default if it was that."""
        model = self._models.get(version.name)
        if model is None or model.versions.get(version.version) is not version:
            return
        del model.versions[version.version]
        if not model.versions:
            del self._models[version.name]
        elif model.default == version.version:
            model.default = next(iter(model.versions))

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(self._unknown(name))
        return model

    def _unknown(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(name[:96], names[:_MAX_COMPARED], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(names[:_MAX_LISTED]) or "no model"
        return f"Model not found: {_short(name)}.{hint} This server has: {known}."


def _unknown_version(name: str, version: str, known: list[str]) -> str:
    return f"Model version: {_short(version)} does not exist for model: {name}; it has {', '.join(known[:_MAX_LISTED])}"


def _short(text: str) -> str:
    return text if len(text) <= 96 else text[:93] + "..."
