"""A function that is not called `handle`: it does what the request's body says, faults of every kind among it."""

import os
import time

from ts.utils.util import PredictionException


def act(data, context):
    if data is None:
        return None
    acts = [_wish(row) for row in data]
    for wish in acts:
        _fault(wish)
    if any(wish.get("act") == "not-a-list" for wish in acts):
        return "a text"
    if any(wish.get("act") == "too-many" for wish in acts):
        return ["one"] * (len(acts) + 1)
    return [_answer(index, wish, context) for index, wish in enumerate(acts)]


def _wish(row):
    body = row.get("body")
    return body if isinstance(body, dict) else {}


def _fault(wish):
    kind = wish.get("act")
    if kind == "raise":
        raise ValueError("the handler does not like this")
    if kind == "cuda":
        raise RuntimeError("CUDA error: out of memory")
    if kind == "memory":
        raise MemoryError
    if kind == "prediction":
        raise PredictionException("not in my list", wish.get("code", 500))
    if kind == "exit":
        os._exit(wish.get("code", 1))
    if kind in ("sleep", "batch"):
        time.sleep(wish.get("seconds", 0.2))


def _answer(index, wish, context):
    kind = wish.get("act")
    if kind == "status":
        context.set_response_status(wish["code"], wish.get("phrase", ""), index)
        return {"told": wish["code"]}
    if kind == "all-status":
        context.set_all_response_status(wish["code"], wish.get("phrase", ""))
        return {"told": wish["code"]}
    if kind == "headers":
        for name, value in wish["headers"].items():
            context.set_response_header(index, name, value)
        return "with headers"
    if kind == "type":
        context.set_response_content_type(index, wish["type"])
        return wish["text"]
    returns = {"bytes": b"\x00\x01raw", "text": "grüße", "number": 3, "none": None, "list": [1, 2], "object": object()}
    if kind == "return":
        return returns[wish["what"]]
    if kind == "batch":
        return {"batch": len(context.request_ids)}
    return {"act": kind}
