"""What `ask` does with frames of a walk: they are pushed to an episode in this process, then asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.errors import error_message, fail
from service.cli.in_process import given_fields, load_models_here, prepare_here
from service.recordings.recording import RecordedFrame, Walk, WalkError

if TYPE_CHECKING:
    from service.episodes.episode import Episode
    from service.episodes.store import EpisodeStore
    from service.pipeline.models import Models
    from service.pipeline.response_models import VqaResponse
    from service.request.schemas import EpisodeFields
    from service.settings import Settings
    from service.timing import StageTimer

ASKED = ("question", "max_new_tokens")
FRAMES_FIELDS = ("merge_frames", "max_visual_tokens", "convention", "intrinsics", "depth_intrinsics")
USUAL = {"merge_frames": "cover"}
"""Of recorded walks, whose frames would rarely fit a prompt without merging."""


@dataclass(frozen=True)
class Source:
    """Say where frames come from: images with depth, poses and timestamps, or a recording; or none of them.

    episode: id of one in the directory of episodes, None for one that ends with this command.
    """

    images: Sequence[Path] = ()
    depths: Sequence[Path] = ()
    poses: Sequence[str] = ()
    timestamps: Sequence[float] = ()
    folder: Path | None = None
    bag: Path | None = None
    bag_topics: Sequence[str] = ()
    world_frame: str | None = None
    max_frames: int = 32
    episode: str | None = None

    @property
    def is_recorded(self) -> bool:
        """Return whether a recording was named."""
        return self.folder is not None or self.bag is not None

    @property
    def is_walk(self) -> bool:
        """Return whether an episode is needed, whatever is said of merging."""
        return self.is_recorded or bool(self.poses or self.timestamps) or self.episode is not None

    def check(self) -> None:
        """Refuse options that do not go together."""
        named = [bool(self.images), self.folder is not None, self.bag is not None].count(True)
        if named > 1:
            fail("--image, --frames and --bag are three ways to name frames: give one of them")
        if named == 0 and self.episode is None:
            fail("give --image, --frames or --bag, or the --episode of frames that came before")
        for name, given in (
            ("--depth", self.depths),
            ("--pose", self.poses),
            ("--timestamp", self.timestamps),
        ):
            if given and not self.images:
                fail(f"{name} goes with --image: a recording has its own")
            if given and len(given) != len(self.images):
                fail(f"{name} is given once for each --image, of which there are {len(self.images)}")
        if (self.bag_topics or self.world_frame) and self.bag is None:
            fail("--bag-topic and --world-frame go with --bag")


SOURCE_OPTIONS = tuple(one.name for one in dataclass_fields(Source) if one.name not in ("images", "depths"))


def answer_about(
    source: Source, fields: Mapping[str, Any], settings: Settings, timer: StageTimer
) -> VqaResponse:
    """Push frames to an episode, and answer. fields: of the question and of the episode, as text.

    Raises what the service raises.
    """
    from service.engine.batch_runner import answer_here
    from service.episodes.asking import prepare_answer
    from service.episodes.store import EpisodeStore
    from service.pipeline.response import respond
    from service.request.schemas import VqaRequest
    from service.request.validation import check_fields

    given = {name: value for name, value in fields.items() if value not in (None, ())}
    if given.pop("views", "single") != "single":
        fail("frames of a walk are seen in --views single, or leave it out")
    asked = {name: given.pop(name) for name in ASKED if name in given}
    walk = _walk(source)
    for note in walk.notes:
        click.echo(f"note: {note}", err=True)
    begun_with = _fields({**(USUAL if source.is_recorded else {}), **_own(walk, given), **given})
    store = EpisodeStore(_with_directory(source, settings))
    models = load_models_here(settings)
    id_ = _begun(store, models, source, begun_with, given)
    timer.skip()
    most = source.max_frames if source.is_recorded else walk.number
    models = _pushed(store, models, id_, walk.frames(most), settings, timer)
    episode = store.get(models.vlm, None, id_)
    question = check_fields({**_sent(episode.fields), **asked}, settings, strict=True)
    request = VqaRequest(question, (), ())
    prepared = prepare_answer(models.vlm, request, episode, settings, None)
    timer.mark("preprocess")
    answer = respond(models.vlm, prepared, answer_here(models, prepared, timer), timer, "cli")
    if source.episode is not None or answer.episode is None:
        return answer
    return answer.model_copy(update={"episode": answer.episode.model_copy(update={"id": None})})


def _walk(source: Source) -> Walk:
    from service.recordings.bag import read_bag
    from service.recordings.folder import read_folder

    try:
        if source.folder is not None:
            return read_folder(source.folder)
        if source.bag is not None:
            pairs = [topic.partition("=") for topic in source.bag_topics]
            named = {kind: topic for kind, _, topic in pairs}
            return read_bag(source.bag, named, source.world_frame)
    except WalkError as error:
        fail(str(error))
    return Walk(Path(), len(source.images), {}, lambda numbers: _given(source, numbers))


def _given(source: Source, numbers: Sequence[int]) -> Iterator[RecordedFrame]:
    """Yield the images that were named one by one."""
    for at in numbers:
        fields: dict[str, Any] = {}
        if source.poses:
            fields["pose"] = _pose(source.poses[at])
        if source.timestamps:
            fields["timestamp"] = source.timestamps[at]
        depth = source.depths[at].read_bytes() if source.depths else None
        yield RecordedFrame(str(source.images[at]), source.images[at].read_bytes(), depth, fields)


def _pose(text: str) -> Any:
    """Read a pose: JSON, or 16 numbers, or a file with one of them. Ends the command if it is none."""
    from service.request.coercion import read_json

    written = text
    if not text.lstrip().startswith(("[", "{")) and Path(text).is_file():
        written = Path(text).read_text()
    try:
        if written.lstrip().startswith(("[", "{")):
            return read_json(written)
        return [float(word) for word in written.replace(",", " ").split()]
    except ValueError:
        fail(f"{text}: a pose is JSON, or 16 numbers row by row, or a file with one of them")


def _own(walk: Walk, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recording says of all frames, without what is said of depth if that is given."""
    is_said = any(name.startswith("depth_") and name != "depth_intrinsics" for name in given)
    about_depth = ("depth_preset", "depth_scale") if is_said else ()
    return {name: value for name, value in walk.fields.items() if name not in about_depth}


def _with_directory(source: Source, settings: Settings) -> Settings:
    """Return settings whose episodes are kept only where one was named."""
    if source.episode is None:
        return settings.model_copy(update={"episodes_dir": None})
    if settings.episodes_dir is None:
        fail("--episode names one in the directory of TOSA_VQA_EPISODES_DIR, which is not set")
    return settings


def _begun(
    store: EpisodeStore, models: Models, source: Source, begun_with: EpisodeFields, given: Mapping[str, Any]
) -> str:
    """Return the id of the episode; begin it if it is not there."""
    from service.episodes.store import ID
    from service.errors import ServiceError

    if source.episode is not None:
        if not ID.fullmatch(source.episode):
            fail("--episode is 32 hexadecimal digits, such as POST /episodes answers with")
        try:
            store.get(models.vlm, None, source.episode)
        except ServiceError as error:
            if error.code != "episode_not_found":
                raise
        else:
            if given:
                names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
                fail(f"the episode was begun with settings of its own: leave {names} out")
            return source.episode
    episode = store.begin(models.vlm, None, begun_with, source.episode)
    assert episode.id is not None, "the store names episodes"
    return episode.id


def _fields(given: Mapping[str, Any]) -> EpisodeFields:
    """Check what an episode is begun with. Raises ServiceError."""
    from service.request.schemas import EpisodeFields
    from service.request.validation import validated

    return validated(EpisodeFields, {"merge_frames": "none", **given_fields(given)}, strict=False)


def _pushed(
    store: EpisodeStore,
    models: Models,
    id_: str,
    frames: Iterator[RecordedFrame],
    settings: Settings,
    timer: StageTimer,
) -> Models:
    """Encode frames one by one and push them; return the models, with an estimator if one was needed."""
    from depth import DepthError
    from service.errors import ServiceError

    try:
        for frame in frames:
            try:
                models = _push(store, models, id_, frame, settings, timer)
            except (ServiceError, DepthError) as error:
                fail(f"{frame.name}: {error_message(error)}")
    except WalkError as error:
        fail(str(error))
    return models


def _push(
    store: EpisodeStore,
    models: Models,
    id_: str,
    frame: RecordedFrame,
    settings: Settings,
    timer: StageTimer,
) -> Models:
    from service.engine.batch_runner import answer_here
    from service.episodes.episode import stored_frame
    from service.pipeline.geometry import check_times
    from service.request.schemas import VqaRequest
    from service.request.validation import check_counts, check_fields

    episode: Episode = store.get(models.vlm, None, id_)
    own = dict(frame.fields)
    plural = {"poses": own.pop("pose", None), "timestamps": own.pop("timestamp", None)}
    listed = {name: [value] for name, value in plural.items() if value is not None}
    raw = {**_sent(episode.fields), "question": "?", **own, **listed}
    depths = () if frame.depth is None else (frame.depth,)
    request = VqaRequest(check_fields(raw, settings, strict=True), (frame.image,), depths)
    check_counts(request, settings)
    models, prepared = prepare_here(models, request, settings, timer)
    check_times(prepared.geometry, episode.last_time)
    encoded = answer_here(models, prepared, timer)
    (geometry,), (visual,) = prepared.geometry, encoded.visuals
    separators = models.vlm.family.separator_rows
    stored = stored_frame(geometry, visual, separators, request.wants_depth)
    store.push(models.vlm, None, id_, stored, geometry.sample)
    return models


def _sent(fields: Any) -> dict[str, Any]:
    """Return the fields that were given, as a question takes them."""
    return {name: value for name, value in fields.model_dump(exclude_unset=True).items() if value is not None}
