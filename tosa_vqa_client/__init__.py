"""Ask a running tosa-vqa service from Python: a thin, typed client over httpx, and no torch.

from tosa_vqa_client import Client

with Client("http://127.0.0.1:8000") as client:
    answer = client.ask("How many chairs are there?", "rgb.png", "depth.png", keep_ratio=0.25)
    print(answer.answer, answer.timings_ms.total)
"""

from importlib.util import find_spec

if find_spec("httpx") is None:
    raise ModuleNotFoundError("tosa_vqa_client needs httpx: pip install 'tosa-vqa[client]'", name="httpx")

from tosa_vqa_client.async_client import AsyncAnswerStream, AsyncClient
from tosa_vqa_client.client import AnswerStream, Client
from tosa_vqa_client.errors import (
    BadInput,
    BadResponse,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    ServiceError,
)
from tosa_vqa_client.files import Depth, Image
from tosa_vqa_client.options import (
    AskOptions,
    CompareOptions,
    DepthOptions,
    EpisodeAskOptions,
    EpisodeOptions,
    InspectOptions,
    MergeOptions,
    OverlayOptions,
    Pose,
    PushOptions,
)
from tosa_vqa_client.progress import Progress
from tosa_vqa_client.results import (
    Answer,
    ComparedAnswer,
    ComparedRefusal,
    Comparison,
    DepthInspection,
    DepthUsed,
    DepthValues,
    EpisodeState,
    EpisodeUsed,
    EpisodeWalk,
    FrameKept,
    FrameTaken,
    MergeDone,
    Method,
    MethodOption,
    Methods,
    Overlay,
    OverlayLayer,
    OverlayView,
    Refusal,
    TimingsMs,
    Usage,
    ViewsUsed,
    WalkCamera,
    WalkToken,
)
from tosa_vqa_client.retries import Retries

__all__ = [
    "Answer",
    "AnswerStream",
    "AskOptions",
    "AsyncAnswerStream",
    "AsyncClient",
    "BadInput",
    "BadResponse",
    "Client",
    "ClientError",
    "CompareOptions",
    "ComparedAnswer",
    "ComparedRefusal",
    "Comparison",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Depth",
    "DepthInspection",
    "DepthOptions",
    "DepthUsed",
    "DepthValues",
    "EpisodeAskOptions",
    "EpisodeOptions",
    "EpisodeState",
    "EpisodeUsed",
    "EpisodeWalk",
    "FrameKept",
    "FrameTaken",
    "Image",
    "InspectOptions",
    "MergeDone",
    "MergeOptions",
    "Method",
    "MethodOption",
    "Methods",
    "Overlay",
    "OverlayLayer",
    "OverlayOptions",
    "OverlayView",
    "Pose",
    "Progress",
    "PushOptions",
    "Refusal",
    "Retries",
    "ServiceError",
    "TimingsMs",
    "Usage",
    "ViewsUsed",
    "WalkCamera",
    "WalkToken",
]
