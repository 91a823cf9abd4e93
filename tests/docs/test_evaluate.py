"""docs/evaluate.md is true: ToSA's setting keeps what the release keeps, and the plan is what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from evals.runners import __main__ as runners
from service.api.chat.request import parse_chat
from service.cli.main import app as service_app
from service.request.schemas import VqaFields
from service.settings import Settings
from tests.docs.commands import called
from tests.docs.pages import ROOT, blocks
from tests.service.chats import body, chat
from tosa import EncoderShape, MergePlan, MergeSpec, make_plan

TEXT = (ROOT / "docs" / "evaluate.md").read_text()
CALLS = called("\n".join(block.text for block in blocks("docs/evaluate.md") if block.language == "sh"))
SHAPE = EncoderShape(num_layers=26, grid=(27, 27), hidden_size=1152, mlp_size=4304)


def plan(fields: dict[str, Any]) -> MergePlan:
    return make_plan(VqaFields(question="?", **fields).merge_spec(has_depth=True), SHAPE)


def merges(name: str) -> dict[str, Any]:
    """Return the spec of the runs that a variable of the page is about."""
    (text,) = set(re.findall(rf"^{name}='(.*)'$", TEXT, re.M))
    return dict(runners.spec_of({"merge_json": text}))


def release_r(ratio: float) -> int:
    """Tokens removed per layer for a ratio, as the release counts: 384 x 384 / 14 x 14 patches, 27 layers."""
    return int(384 * 384 / (14 * 14) * (1 - ratio) / 27)


def test_the_documented_setting_keeps_what_the_release_keeps_in_every_layer() -> None:
    """Ratio 0.1: r = int(752.33 * 0.9 / 27) = 25; 26 layers run, so 729 - 26 * 25 = 79 tokens are left."""
    fields = merges("TOSA")
    assert fields["r"] == release_r(0.1) == 25 and fields["depth"] == "estimate"
    found = plan(fields)
    assert found.counts == tuple(729 - 25 * layer for layer in range(27)) and found.tokens_out == 79
    assert (found.method, found.prop_attn, found.order) == ("tosa", False, "merge")
    assert [step and step.alpha for step in found.steps] == [layer / 25 for layer in range(26)]
    assert plan(merges("OWN")).counts == plan(merges("TOME")).counts == found.counts
    assert merges("OWN")["depth_kind"] == "inverse"


def test_keep_ratio_would_not_keep_the_same() -> None:
    assert plan({"method": "tosa", "keep_ratio": 0.1}).tokens_out == 73


def test_the_table_of_counts_is_the_releases() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.M)
    assert len(rows) == 9
    for ratio, r, out, share, work in rows:
        found = make_plan(MergeSpec("tosa", r=int(r)), SHAPE)
        assert (int(r), int(out)) == (release_r(float(ratio)), found.tokens_out)
        assert (share, work) == (f"{found.keep_ratio:.3f}", f"{found.flops_ratio:.2f}")


def test_the_plan_is_what_the_command_prints(tmp_path: Path) -> None:
    """The command reads config.json only: here one of the same shape stands for the hub's."""
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "patch_size": 14}
    vision |= {"image_size": 384, "num_attention_heads": 16, "vision_use_head": False}
    tower = {"model_type": "siglip_vision_model", **vision}
    config = {"model_type": "llava_onevision", "vision_config": tower, "text_config": {"model_type": "qwen2"}}
    config["vision_feature_select_strategy"] = "full"
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = re.search(r"<!-- plan: r 25 -->\n```text\n(.*?)```", TEXT, re.S)
    (call,) = [call for call in CALLS if call.words[:2] == ("tosa-vqa", "plan")]
    words = list(call.words[1:])
    words[words.index("--model") + 1] = str(tmp_path)
    printed = CliRunner().invoke(service_app, words)
    assert shown and printed.exit_code == 0 and printed.output == shown[1]


def test_the_configuration_for_vlmevalkit_is_one_that_the_endpoint_takes() -> None:
    shown = re.search(r"<!-- vlmevalkit: config.json -->\n```json\n(.*?)```", TEXT, re.S)
    assert shown
    config = json.loads(shown[1])
    ours = {"model", "temperature", "max_tokens", "merge", "depth"}
    requests = [
        parse_chat(body(chat(**{name: model[name] for name in ours & model.keys()})), Settings()).vqa_request
        for model in config["model"].values()
    ]
    assert [one.fields.method for one in requests] == [None, "tosa"]
    assert {model["key"][:3] for model in config["model"].values()} == {"sk-"}
