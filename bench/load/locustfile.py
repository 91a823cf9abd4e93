"""The same load for Locust: one kind of user for each mode, multipart, stages as requests of their own.

locust -f bench/load/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -r 4 -t 60s
Locust is a closed loop: users wait for their answers, so it does not show an overload. `python -m bench.load`
does. Choose modes by class: ... locustfile.py NoneUser TosaUser
"""

# pyright: reportMissingImports=false, reportArgumentType=false
# (Locust is an extra; and it accepts bytes, against its annotation.)

from __future__ import annotations

from itertools import count
from typing import Any

from locust import FastHttpUser, between, events, task

from bench.load.corpus import body_of, view
from bench.load.requests import FORM_TYPE, REFUSALS

FRAMES = 16
NEXT_FRAME = count()


@events.init.add_listener
def draw_frames(**_: Any) -> None:
    """Render before the test begins, not within it."""
    for index in range(FRAMES):
        view(index)


class VqaUser(FastHttpUser):
    """Ask one question after another, each about a different frame."""

    abstract = True
    wait_time = between(0.1, 0.5)
    mode = "none"

    @task
    def ask(self) -> None:
        number = next(NEXT_FRAME)
        body = body_of(number % FRAMES, self.mode, number // FRAMES)
        headers = {"Content-Type": FORM_TYPE}
        with self.client.post(
            "/vqa", data=body, headers=headers, name=self.mode, catch_response=True
        ) as response:
            if response.status_code in REFUSALS and "retry-after" in (response.headers or {}):
                response.success()  # a refusal that says when to retry is correct under load
                self.report("refused", 0.0)
            elif response.status_code == 200:
                for stage, spent_ms in response.json().get("timings_ms", {}).items():
                    if spent_ms is not None:
                        self.report(stage, spent_ms)

    def report(self, stage: str, spent_ms: float) -> None:
        """Count a stage of the server as Locust counts requests, so that its tables and charts show it."""
        events.request.fire(
            request_type="STAGE",
            name=f"{self.mode}: {stage}",
            response_time=spent_ms,
            response_length=0,
            exception=None,
            context={},
        )


class NoneUser(VqaUser):
    weight = 1
    mode = "none"


class TomeUser(VqaUser):
    weight = 2
    mode = "tome 0.25"


class TosaUser(VqaUser):
    weight = 4
    mode = "tosa 0.25"


class CubistUser(VqaUser):
    weight = 1
    mode = "cubist 0.25"
