"""Pictures for agents: the merged patches of a frame, and the walk of an episode seen from above."""

from __future__ import annotations

import io
from typing import Any

from tosa_vqa_client import EpisodeWalk, OverlayView

MAP_PX, MARGIN_PX = 512, 24


def groups_png(image: bytes, view: OverlayView) -> bytes:
    """Draw the groups of a view of the whole picture, and return a PNG."""
    import numpy
    from PIL import Image, ImageOps

    from vlm.overlay import draw_groups

    pixels = ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB")
    rows, columns = view.grid
    buffer = io.BytesIO()
    draw_groups(pixels, numpy.array(view.groups), (rows, columns)).save(buffer, "PNG")
    return buffer.getvalue()


def walk_png(walk: EpisodeWalk) -> bytes:
    """Draw an episode seen from above, and return a PNG: the path of the camera, and tokens as dots.

    What the answer's attention read more is drawn larger and warmer, where it is known.
    """
    import numpy
    from PIL import Image, ImageDraw

    cameras = numpy.array([camera.position for camera in walk.cameras]).reshape(-1, 3)
    tokens = [token for token in walk.tokens if token.place is not None]
    places = numpy.array([token.place for token in tokens]).reshape(-1, 3)
    ground = _ground(walk)
    flat = numpy.concatenate([cameras, places]) @ ground.T
    low, high = (flat.min(0), flat.max(0)) if len(flat) else (numpy.zeros(2), numpy.ones(2))
    scale = (MAP_PX - 2 * MARGIN_PX) / max(float((high - low).max()), 0.1)
    middle = (low + high) / 2
    dots = [tuple(MAP_PX / 2 + scale * (one - middle) * (1, -1)) for one in flat]
    most = max((token.attention or 0 for token in tokens), default=0)
    picture = Image.new("RGB", (MAP_PX, MAP_PX), "white")
    pen = ImageDraw.Draw(picture)
    drawn = list(zip(tokens, dots[len(cameras) :], strict=True))
    for token, dot in sorted(drawn, key=lambda one: one[0].attention or 0):
        share = (token.attention or 0) / most if most else 0
        colour = (int(120 + 105 * share), int(140 - 60 * share), int(175 - 130 * share))
        pen.circle(dot, 2.5 + 5 * share, fill=colour)
    if len(cameras) > 1:
        pen.line(dots[: len(cameras)], fill=(47, 91, 208), width=3)
    for at, dot in enumerate(dots[: len(cameras)]):
        pen.circle(dot, 6 if at == 0 else 4, fill=(47, 91, 208))
    metre = scale if scale < MAP_PX / 3 else scale / 10
    pen.line([(MARGIN_PX, MAP_PX - 14), (MARGIN_PX + metre, MAP_PX - 14)], fill="black", width=2)
    pen.text((MARGIN_PX + metre + 6, MAP_PX - 20), "1 m" if metre == scale else "0.1 m", fill="black")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _ground(walk: EpisodeWalk) -> Any:
    """Return two unit vectors along the ground [2, 3]: what is up is the mean of the cameras' ups."""
    import numpy

    up = numpy.sum([camera.up for camera in walk.cameras] or [(0, 0, 1)], axis=0)
    up = up / max(float(numpy.linalg.norm(up)), 1e-9)
    ahead = numpy.array(walk.cameras[0].forward if walk.cameras else (0, 1, 0))
    ahead = ahead - up * (ahead @ up)
    if numpy.linalg.norm(ahead) < 1e-6:  # it looked straight up or down
        ahead = numpy.cross(up, (1, 0, 0)) if abs(up[0]) < 0.9 else numpy.cross(up, (0, 1, 0))
    ahead = ahead / numpy.linalg.norm(ahead)
    return numpy.stack([numpy.cross(ahead, up), ahead])
