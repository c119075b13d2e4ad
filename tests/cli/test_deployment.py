"""Which deployment a command talks to, and that both kinds answer alike."""

from __future__ import annotations

import json

import pytest

from reactive_store.cli.deployment import (
    RunningDeployment,
    StoppedDeployment,
    Target,
    open_deployment,
)
from reactive_store.errors import BadRequest, NotFound
from reactive_store.persistence.data_lock import DataLock

SEND = json.dumps({"author": "Ann", "body": "Hello"}).encode()


async def test_a_stopped_deployment_is_opened_here_and_let_go(project):
    for _ in range(2):
        async with open_deployment(Target(project)) as deployment:
            assert isinstance(deployment, StoppedDeployment)
            assert (await deployment.call("messages.js:send", SEND)).error is None


async def test_a_running_deployment_is_asked(server, project):
    async with open_deployment(Target(project)) as deployment:
        assert isinstance(deployment, RunningDeployment)
        assert (await deployment.call("messages.js:send", SEND)).error is None


@pytest.mark.parametrize("kind", ["stopped", "running"])
async def test_both_kinds_answer_alike(kind, request, project):
    if kind == "running":
        request.getfixturevalue("server")
    async with open_deployment(Target(project)) as deployment:
        failed = await deployment.call("messages.js:send", b'{"author":"A","body":""}')
        assert (failed.value, failed.error_data) == (None, {"code": "empty_message"})
        assert "Uncaught ConvexError" in failed.error
        assert not failed.is_hidden
        values = deployment.watch("messages.js:list", b"{}")
        assert (await anext(values)).value == []
        await deployment.call("messages.js:send", SEND)
        assert [message["body"] for message in (await anext(values)).value] == ["Hello"]
        await values.aclose()
        await deployment.change_environment({"A": "1"})
        listed = await deployment.call("_system/cli/queryEnvironmentVariables.js:default", b"{}")
        assert listed.value == [{"name": "A", "value": "1"}]
        with pytest.raises(BadRequest, match="1A"):
            await deployment.change_environment({"1A": "1"})


async def test_a_folder_in_use_by_what_serves_nothing_is_said(project):
    with (
        DataLock(project / ".reactive_store"),
        pytest.raises(NotFound, match="serves no URL"),
    ):
        async with open_deployment(Target(project)):
            pass


@pytest.mark.parametrize("url", ["ftp://host", "127.0.0.1:3210"])
async def test_a_url_is_one_of_http(url):
    async with open_deployment(Target(None, url=url, admin_key="a|b")) as deployment:
        with pytest.raises(BadRequest, match="http://"):
            await deployment.call("a.js:b", b"{}")
