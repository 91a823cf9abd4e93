"""D: LitServe with its batching: waiting requests, at most a full batch, encoded and decoded together."""
# pyright: reportMissingImports=false, reportIncompatibleMethodOverride=false

import sys
from typing import Any

import litserve
from fastapi import Request

from bench.peers.model import MAX_BATCH, Model
from service.pipeline.prepare import Prepared


class Vqa(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = Model()

    def decode_request(self, request: Request) -> Prepared:
        form: Any = request  # LitServe reads the annotation, but passes the form
        files = form["image"].file.read(), form["depth"].file.read()
        return self.model.prepare(*files, form["question"], form["method"], float(form["keep_ratio"]))

    def batch(self, inputs: list[Prepared]) -> list[Prepared]:
        return inputs

    def predict(self, batch: list[Prepared]) -> list[str]:
        return self.model.answers(batch)

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        return {"answer": output}


if __name__ == "__main__":
    api = Vqa(max_batch_size=MAX_BATCH, batch_timeout=0.0, api_path="/vqa")
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run("127.0.0.1", int(sys.argv[1]), log_level="warning", generate_client_file=False)
