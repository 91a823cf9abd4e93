"""python -m bench.overhead.plain PORT: plain FastAPI that reads the same requests and does nothing."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, File, Form, UploadFile

app = FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Answer the probe of the benchmark and of the proxy."""
    return {"status": "ready"}


@app.post("/vqa")
async def vqa(image: Annotated[UploadFile, File()], question: Annotated[str, Form()]) -> dict[str, Any]:
    """Read the image."""
    return {"answer": f"{len(await image.read())} {question}"}


@app.post("/v1/chat/completions")
async def chat(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Read the messages."""
    message = {"role": "assistant", "content": str(len(body["messages"]))}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "x", "choices": [choice]}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
