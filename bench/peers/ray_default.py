"""E: Ray Serve with its defaults, one replica."""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.model import Model


@serve.deployment
class Vqa:
    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> dict[str, str]:
        if request.method == "GET":
            return {"status": "ready"}
        form: Any = await request.form()
        files = await form["image"].read(), await form["depth"].read()
        words = form["question"], form["method"], float(form["keep_ratio"])
        return {"answer": self.model.answer(self.model.prepare(*files, *words))}


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Vqa.bind(), route_prefix="/vqa")  # pyright: ignore[reportAttributeAccessIssue]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(serve.shutdown() or ray.shutdown()))
    signal.pause()
