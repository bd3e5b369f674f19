"""A class handler without a base: it answers with what it was given, so that the decoding of inputs can be seen."""

SHOWN_HEADERS = ("url_path", "explain", "x-note", "content-type")


def _seen(value):
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).decode("latin-1")}
    return {"text": value} if isinstance(value, str) else {"json": value}


class Inputs:
    def __init__(self):
        self.model_dir = None

    def initialize(self, context):
        self.model_dir = context.system_properties.get("model_dir")

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            # With an envelope one request may hold several rows.
            request = min(index, len(context.request_ids) - 1)
            headers = context.get_all_request_header(request) or {}
            headers = {name.lower(): value for name, value in headers.items()}
            answers.append(
                {
                    "inputs": {name: _seen(row[name]) for name in sorted(row)},
                    "headers": {name: headers[name] for name in SHOWN_HEADERS if name in headers},
                    "model": context.model_name,
                    "manifest": sorted(context.manifest["model"]),
                    "version": context.manifest["model"]["modelVersion"],
                    "server": context.system_properties.get("server_name"),
                    "batch_size": context.system_properties.get("batch_size"),
                    "has_model_dir": bool(self.model_dir),
                    "has_request_id": bool(context.get_request_id(request)),
                    "config": dict(context.model_yaml_config or {}).get("handler"),
                }
            )
        return answers
