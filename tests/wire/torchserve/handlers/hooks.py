"""A subclass of BaseHandler which overrides every hook, and explains and describes itself."""

from ts.torch_handler.base_handler import BaseHandler


class Hooks(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        self.mapping = {"0": "even", "1": "odd"}
        self.initialized = True

    def preprocess(self, data):
        return [int(row.get("body", row.get("number"))) for row in data]

    def inference(self, data, *args, **kwargs):
        return [number % 2 for number in data]

    def postprocess(self, data):
        return [{"class": self.mapping[str(number)]} for number in data]

    def explain_handle(self, data_preprocess, raw_data):
        return [{"because": f"{number} modulo 2"} for number in data_preprocess]

    def describe_handle(self):
        return {"classes": sorted(self.mapping.values())}
