"""The model class which an archive of the GKE sample names as its `--model-file`.

Eager loading would take it; with `"save_mode": "pretrained"` the handler loads the checkpoint itself, as in the sample.
"""

from transformers import T5Config, T5ForConditionalGeneration


class T5Model(T5ForConditionalGeneration):
    """A T5 of the size of the checkpoint beside it."""

    def __init__(self):
        super().__init__(T5Config.from_json_file("config.json"))
