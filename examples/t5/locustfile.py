"""Load for a T5 behind TorchServe's protocol: users who send one sentence every two to two and a half seconds.

Written after what the load generator of Google's GKE sample does (GoogleCloudPlatform/kubernetes-engine-samples,
ai-ml/t5-model-serving/loadgenerator, Apache-2.0). An answer counts if its status is 200.

    MODEL_NAME=t5-small MODEL_VERSION=1.0 LOCUST_HOST=http://127.0.0.1:8080 locust -f examples/t5/locustfile.py
"""

import os

from locust import FastHttpUser, between, task

MODEL_NAME = os.environ.get("MODEL_NAME", "t5-small")
MODEL_VERSION = os.environ.get("MODEL_VERSION", "1.0")
PAYLOAD = {"text": "this is a test sentence", "from": "en", "to": "fr"}


class TranslationUser(FastHttpUser):
    """Translates the same sentence again and again."""

    wait_time = between(2, 2.5)

    @task
    def translate(self):
        """One request."""
        self.client.post(f"/predictions/{MODEL_NAME}/{MODEL_VERSION}", json=PAYLOAD)
