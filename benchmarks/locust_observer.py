"""Given to Locust beside a locustfile, which stays as it is: writes down what its requests got, by status.

`locust -f locustfile.py,locust_observer.py`; the environment variable LOCUST_OBSERVED names the file to write. What
happens once all users run is counted. Runs in Locust's interpreter, so it imports nothing of this package.
"""

import json
import os
import time
from collections import defaultdict
from pathlib import Path

from locust import events

_observed = {"began": None, "milliseconds": defaultdict(list), "without_retry_after": 0, "errors": defaultdict(int)}


@events.spawning_complete.add_listener
def _begin(user_count, **_):
    _observed["began"] = time.monotonic()


@events.request.add_listener
def _note(response_time, response, exception, **_):
    if _observed["began"] is None:
        return
    status = getattr(response, "status_code", 0) or 0
    _observed["milliseconds"][status].append(response_time)
    if status == 503 and not response.headers.get("retry-after"):
        _observed["without_retry_after"] += 1
    if status == 0:
        _observed["errors"][repr(exception)[:200]] += 1


@events.test_stopping.add_listener
def _end(**_):
    """Users that are stopped in the middle of a request shall not count."""
    if _observed["began"] is None:
        return
    seconds = time.monotonic() - _observed["began"]
    _observed["began"] = None
    facts = {"seconds": seconds, **{key: value for key, value in _observed.items() if key != "began"}}
    Path(os.environ["LOCUST_OBSERVED"]).write_text(json.dumps(facts), encoding="utf-8")
