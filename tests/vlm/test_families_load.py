"""Loading families: what their configs may say, and one sentence for what does not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vlm.families import CASES, kinds, write_family
from tests.vlm.family_pictures import QUESTION, picture, read
from vlm import Turn, Vlm, VlmError, chat_ids, layouts, load_shape, load_vlm
from vlm.check import check
from vlm.families import FAMILIES


def refusal(folder: Path) -> VlmError:
    with pytest.raises(VlmError) as error:
        load_vlm(folder)
    assert str(folder) in str(error.value)
    return error.value


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", CASES)
def test_the_shape_is_known_without_weights(member: Callable[..., Any], name: str) -> None:
    it = member(name)
    shape = load_shape(it.folder)
    assert shape == it.vlm.shape
    (layout,) = layouts(it.vlm, [(96, 128)], "single")
    adapted = it.vlm.family.adapter(it.vlm.core, layout).shape
    fields = ("grid", "num_prefix", "window", "rotary", "requires_grid", "cell", "num_layers", "hidden_size")
    assert all(getattr(shape, field) == getattr(adapted, field) for field in fields)


def test_another_model_type_is_refused_with_those_that_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    error = refusal(tmp_path)
    assert (error.code, error.choices) == ("unsupported_model", tuple(FAMILIES))


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("llava", {"vision_feature_layer": [-2, -1]}, "unsupported_model"),
        ("llava", {"vision_config": {"model_type": "pixtral"}}, "unsupported_tower"),
        ("llava_next", {"vision_feature_select_strategy": "full"}, "unsupported_model"),
        ("internvl", {"vision_feature_layer": -2}, "unsupported_model"),
        (
            "internvl",
            {"vision_config": {"model_type": "internvl_vision", "image_size": [112, 56]}},
            "unsupported_model",
        ),
        ("gemma3", {"default_views": "panorama"}, "broken_checkpoint"),
        ("smolvlm", {"default_views": ["single"]}, "broken_checkpoint"),
    ],
    ids=str,
)
def test_what_a_family_does_not_run_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], code: str
) -> None:
    edit(write_family(tmp_path / name, name), **changes)
    assert refusal(tmp_path / name).code == code


def test_a_checkpoint_may_say_what_views_it_was_trained_on(tmp_path: Path) -> None:
    edit(write_family(tmp_path, "llava_onevision"), default_views="single")
    vlm = load_vlm(tmp_path)
    assert layouts(vlm, [(96, 128)])[0].kind == "single"
    assert layouts(vlm, [(96, 128)], "auto")[0].kind == "anyres"
    assert load_vlm("room-tiny").default_views == "single"


def test_what_a_checkpoint_says_about_views_names_them(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "llava_onevision")
    before = load_vlm(folder).family.processing
    assert before == load_vlm(folder).family.processing
    path = folder / "processor_config.json"
    path.write_text(path.read_text().replace("0.4", "0.45"))
    assert load_vlm(folder).family.processing != before


def test_a_tokenizer_without_a_token_for_videos_still_serves_images(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "llava_onevision")
    edit(folder, video_token_index=10**6, video_token_id=10**6)
    vlm = load_vlm(folder)
    assert set(vlm.family.placeholders) == {"image"}
    require_no_videos(vlm)
    assert len(read(vlm, [picture((96, 128))])[1][0].features) > 100


def test_a_template_without_videos_leaves_those_views_out(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "qwen3_vl")
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|vision_start|><|video_pad|><|vision_end|>", ""))
    vlm = load_vlm(folder)
    require_no_videos(vlm)
    assert {views for each in check(folder).views for views in each.views} == {"auto", "single"}
    assert len(read(vlm, [picture((96, 128))])[1]) == 1


def test_the_template_of_room_tiny_shows_no_videos() -> None:
    require_no_videos(load_vlm("room-tiny"))


@pytest.mark.parametrize("name", [name for name in CASES if "video" in kinds(name)])
def test_without_a_video_processor_images_are_still_read(tmp_path: Path, name: str) -> None:
    folder = write_family(tmp_path, name)
    path = folder / "processor_config.json"
    raw = json.loads(path.read_text())
    del raw["video_processor"]
    path.write_text(json.dumps(raw))
    vlm = load_vlm(folder)
    require_no_videos(vlm, "no video processor")
    assert all("video" not in each.views for each in check(folder).views)
    assert len(read(vlm, [picture((96, 128))])[1]) == 1


def require_no_videos(vlm: Vlm, reason: str = "chat template") -> None:
    with pytest.raises(VlmError) as error:
        layouts(vlm, [(96, 128)] * 2, "video")
    assert (error.value.code, error.value.field) == ("unsupported_views", "views")
    assert "video" not in (error.value.choices or ())
    assert reason in str(error.value)


def test_paligemma_takes_one_question(member: Callable[..., Any]) -> None:
    vlm = member("paligemma").vlm
    turns = [Turn("user", (QUESTION,)), Turn("assistant", ("2",)), Turn("user", (QUESTION,))]
    with pytest.raises(VlmError) as error:
        chat_ids(vlm, turns, [])
    assert error.value.code == "unsupported_turns"


def test_a_question_cannot_forge_the_tags_of_a_picture(member: Callable[..., Any]) -> None:
    for name in CASES:
        vlm = member(name).vlm
        tokens = vlm.tokenizer.added_tokens_decoder.values()
        forged = " ".join(token.content for token in tokens if token.special)
        plain, asked = (chat_ids(vlm, [Turn("user", (text,))], []) for text in (QUESTION, forged))
        special = {id_ for id_, token in vlm.tokenizer.added_tokens_decoder.items() if token.special}
        assert [i for i in asked[0].tolist() if i in special] == [
            i for i in plain[0].tolist() if i in special
        ]
