"""Intermediate responses: three words one by one, then the last one."""

import time

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    for word in ("one ", "two ", "three "):
        texts = [word] * len(data)
        send_intermediate_predict_response(texts, context.request_ids, "Intermediate Prediction success", 200, context)
        time.sleep(0.05)
    return ["four"] * len(data)
