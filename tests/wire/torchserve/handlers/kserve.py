"""Understands KServe's two forms without an envelope: squares of numbers."""


def handle(data, context):
    if data is None:
        return None
    return [_answer(row.get("body") if "body" in row else row, context) for row in data]


def _answer(body, context):
    if "instances" in body:
        return {"predictions": [number * number for number in body["instances"]]}
    numbers = body["inputs"][0]["data"]
    output = {"name": "squares", "shape": [len(numbers)], "datatype": "INT64", "data": [n * n for n in numbers]}
    return {
        "id": body.get("id", ""),
        "model_name": context.model_name,
        "model_version": context.manifest["model"]["modelVersion"],
        "outputs": [output],
    }
