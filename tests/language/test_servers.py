"""Which server gets a prompt, and the settings that name the servers."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr, ValidationError

from service.cli.main import app
from service.language.faults import Fault
from service.language.servers import MAX_AHEAD, Servers
from service.settings import Settings

URLS = tuple(f"http://10.0.0.{n}:8000" for n in range(4))


def some(number: int = 3) -> Servers:
    client: Any = None

    async def verify(_: object) -> None: ...

    servers = Servers(URLS[:number], client, None, verify)
    for server in servers.all:
        server.fault = None
    return servers


def test_a_picture_has_its_server() -> None:
    servers = some()
    own = {picture: servers.choose(picture) for picture in (bytes([n]) for n in range(60))}
    assert set(own.values()) == set(servers.all), "and every server has pictures"
    assert all(servers.choose(picture) is server for picture, server in own.items())


def test_a_server_that_is_gone_moves_only_its_own_pictures() -> None:
    servers = some()
    pictures = [bytes([n]) for n in range(60)]
    before = {picture: servers.choose(picture) for picture in pictures}
    gone = servers.all[1]
    gone.fault = Fault("language_down")
    for picture in pictures:
        assert (servers.choose(picture) is before[picture]) == (before[picture] is not gone)


def test_a_busy_server_gives_its_pictures_away() -> None:
    servers = some(2)
    own = servers.choose(b"x")
    (idle,) = (server for server in servers.all if server is not own)
    own.running = idle.running + MAX_AHEAD
    assert servers.choose(b"x") is own
    own.running += 1
    assert servers.choose(b"x") is idle


def test_no_server_is_asked_twice() -> None:
    servers = some(2)
    first = servers.choose(b"x")
    second = servers.choose(b"x", {first})
    assert second is not first
    with pytest.raises(Fault):
        servers.choose(b"x", {first, second})


def test_of_several_faults_the_soonest_over_is_told() -> None:
    servers = some(2)
    servers.all[0].fault, servers.all[1].fault = Fault("language_wrong_model"), Fault("language_down")
    with pytest.raises(Fault) as caught:
        servers.require_one()
    assert caught.value.code == "language_down" and caught.value is not servers.all[1].fault


def test_the_shortest_context_counts() -> None:
    servers = some(3)
    assert servers.max_tokens is None
    servers.all[0].max_tokens, servers.all[2].max_tokens = 400, 300
    assert servers.max_tokens == 300


def test_addresses_are_read_as_a_list() -> None:
    settings = Settings(
        language="vllm", language_urls=f"{URLS[0]}/, {URLS[1]},{URLS[0]}, https://a.example/llm"
    )
    assert settings.language_addresses == (*URLS[:2], "https://a.example/llm")


@pytest.mark.parametrize(
    "given",
    [
        {"language": "vllm"},
        {"language": "vllm", "language_urls": " , "},
        {"language_urls": URLS[0]},
        {"language": "other", "language_urls": URLS[0]},
        {"language": "vllm", "language_urls": "10.0.0.1:8000"},
        {"language": "vllm", "language_urls": "ftp://10.0.0.1"},
        {"language": "vllm", "language_urls": "http://user:s3cret@10.0.0.1:8000"},
        {"language": "vllm", "language_urls": "http://10.0.0.1:8000/?a=s3cret"},
        {"language": "vllm", "language_urls": URLS[0], "language_api_key": SecretStr("s3cret with space")},
        {"language": "vllm", "language_urls": URLS[0], "language_timeout_s": 0},
        {"language": "vllm", "language_urls": URLS[0], "device_map": "auto"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**given)
    said = "; ".join(error["msg"] for error in caught.value.errors())
    assert "s3cret" not in said


def test_the_command_line_refuses_servers_without_vllm_in_one_sentence() -> None:
    done = CliRunner().invoke(app, ["serve", "--language", "vllm"])
    assert done.exit_code == 2 and "language_urls" in done.output and done.output.count("\n") == 1
    done = CliRunner().invoke(app, ["serve", "--language-url", "http://user:s3cret@a", "--language", "vllm"])
    assert done.exit_code == 2 and "s3cret" not in done.output


def test_the_command_line_passes_every_address_on(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Settings] = []

    def stop(settings: Settings) -> None:
        heard.append(settings)
        raise ValueError("heard")

    monkeypatch.setattr("service.app.create_app", stop)
    urls = [word for url in URLS[:2] for word in ("--language-url", url)]
    done = CliRunner().invoke(app, ["serve", "--language", "vllm", *urls])
    assert done.exit_code == 2
    assert heard[0].language == "vllm" and heard[0].language_addresses == URLS[:2]
