"""C: a competent FastAPI: decoding in a pool, the model in one thread, a bound on the requests in flight."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, UploadFile

from bench.peers.model import Model

app, model = FastAPI(), Model()
decoders, model_thread = ThreadPoolExecutor(model.settings.decode_threads), ThreadPoolExecutor(1)
slots = asyncio.Semaphore(int(os.environ["PEER_SLOTS"]))


@app.post("/vqa")
async def vqa(
    image: UploadFile,
    depth: UploadFile,
    question: Annotated[str, Form()],
    method: Annotated[str, Form()],
    keep_ratio: Annotated[float, Form()],
) -> dict[str, str]:
    if slots.locked():
        raise HTTPException(503, "overloaded", {"Retry-After": "1"})
    async with slots:
        loop, files = asyncio.get_running_loop(), (await image.read(), await depth.read())
        ready = await loop.run_in_executor(decoders, model.prepare, *files, question, method, keep_ratio)
        return {"answer": await loop.run_in_executor(model_thread, model.answer, ready)}


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "alive"}


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
