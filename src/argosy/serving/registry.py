"""The models this replica serves, by every name a client may use: served names, aliases and adapters."""

from __future__ import annotations

import difflib

from argosy.core.errors import Conflict, ModelNotFound
from argosy.serving.served_model import ServedModel

_MAX_LISTED = 10


class ModelRegistry:
    """Names → served models. An adapter's name resolves to the model that holds it."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, ServedModel] = {}

    def add(self, model: ServedModel, *, aliases: tuple[str, ...] = ()) -> None:
        """Serve `model` under its name, its aliases and its adapters' names. Raises: Conflict if one is taken."""
        names = (model.name, *aliases, *model.adapters)
        for name in names:
            if name in self._names:
                raise Conflict(f"a model named {name!r} is served already: choose another served model name")
        self._models[model.name] = model
        self._names.update(dict.fromkeys(names, model))

    def remove(self, name: str) -> ServedModel:
        """Stop serving a model under all its names. Requests already running go on. Raises: ModelNotFound."""
        model = self.get(name)
        del self._models[model.name]
        self._names = {known: held for known, held in self._names.items() if held is not model}
        return model

    def get(self, name: str) -> ServedModel:
        """The model served under `name`. Raises: ModelNotFound listing what there is."""
        model = self._names.get(name)
        if model is None:
            raise ModelNotFound(self._unknown(name), param="model")
        return model

    def list(self) -> list[ServedModel]:
        """Every served model once, in the order they were added."""
        return [*self._models.values()]

    def names(self) -> tuple[str, ...]:
        """Every name `get` answers to."""
        return (*self._names,)

    def label(self, name: str) -> str:
        """`name` if it is served, else "unknown": safe as a metric label whatever a client sends (D-35)."""
        return name if name in self._names else "unknown"

    def _unknown(self, name: str) -> str:
        shown = name if len(name) <= 96 else name[:93] + "..."
        near = difflib.get_close_matches(name[:96], self._names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(self._names)[:_MAX_LISTED]) or "no model"
        return f"The model `{shown}` does not exist.{hint} This server has: {known}."
