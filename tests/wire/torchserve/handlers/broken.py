"""Cannot be initialised."""


class Broken:
    def initialize(self, context):
        raise RuntimeError("no weights here")

    def handle(self, data, context):
        return data
