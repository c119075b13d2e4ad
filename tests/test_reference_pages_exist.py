"""What the code and the documents cite exists, and what the pages show is what happens."""

from __future__ import annotations

import doctest
import hashlib
import hmac
import re
from pathlib import Path
from types import ModuleType

import pytest

from reactive_store.cli.init import init_command
from reactive_store.functions.loader import build_app, load_app
from reactive_store.testing import TestBackend

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CITED = re.compile(r"\bdocs/[\w./-]+\.md\b")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]*)#([\w-]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_IGNORED = frozenset((".venv", ".git", "node_modules", "dist", ".pytest_cache", ".hypothesis"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    found = _FENCE.findall(text_of(ROOT / "docs" / page))
    return [body for kind, body in found if kind == language]


def own_files(pattern: str) -> list[Path]:
    found = ROOT.rglob(pattern)
    return [path for path in found if _IGNORED.isdisjoint(path.relative_to(ROOT).parts)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = _FENCE.sub("", text_of(page))
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose))
    return {heading.strip().replace(" ", "-") for heading in kept}


def test_every_page_that_is_cited_exists():
    missing = {
        f"{relative(path)}: {cited}"
        for path in [*own_files("*.py"), *own_files("*.md")]
        for cited in _CITED.findall(text_of(path))
        if not (ROOT / cited).exists()
    }
    assert sorted(missing) == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_to_headings_lead_somewhere(page: Path):
    broken = [
        f"{target}#{anchor}"
        for target, anchor in _LINK.findall(text_of(page))
        if "://" not in target and anchor not in anchors(page.parent / target if target else page)
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_sessions_on_the_page_go_as_shown(page: Path):
    session = "\n".join(body for kind, body in _FENCE.findall(text_of(page)) if kind == "pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert "".join(said) == ""


def test_code_of_the_first_steps_is_what_init_writes(tmp_path: Path):
    init_command(tmp_path)
    written = [text_of(tmp_path / name) for name in ("schema.py", "functions/messages.py")]
    shown = blocks("guide/getting-started.md", "python")[:2]
    # The page says in prose what the files say in their first line.
    assert [text.partition("\n\n")[2].lstrip("\n") for text in written] == shown


@pytest.mark.parametrize("page", ["documents", "queries", "pagination", "functions"])
def test_functions_on_the_page_can_be_loaded(page: str, tmp_path: Path):
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "shown.py").write_text(
        "\n".join(blocks(f"reference/{page}.md", "python")), encoding="utf-8"
    )
    assert build_app(functions=functions).functions


async def test_schema_on_the_page_comes_into_force(tmp_path: Path):
    (shown,) = blocks("reference/schema.md", "python")
    (tmp_path / "schema.py").write_text(shown, encoding="utf-8")
    async with TestBackend(app=load_app(tmp_path)) as t:
        assert {"channels", "messages"} <= t.backend.database.catalog.tables.keys()


async def test_http_actions_on_the_page_answer(tmp_path: Path):
    init_command(tmp_path)
    routes, test = blocks("guide/http-actions.md", "python")
    (tmp_path / "functions" / "http.py").write_text(routes, encoding="utf-8")
    names = {"APP": tmp_path, "TestBackend": TestBackend, "hashlib": hashlib, "hmac": hmac}
    exec(compile(test, "http-actions.md", "exec"), names)
    await names["test_a_payment_becomes_a_message"]()


async def test_files_on_the_page_are_kept(tmp_path: Path):
    init_command(tmp_path)
    functions, test = blocks("guide/files.md", "python")
    (tmp_path / "functions" / "attachments.py").write_text(functions, encoding="utf-8")
    names = {"APP": tmp_path}
    exec(compile(test, "files.md", "exec"), names)
    await names["test_a_file_is_kept_until_it_is_deleted"]()


async def test_schedules_on_the_page_are_kept(tmp_path: Path):
    init_command(tmp_path)
    functions, crons, test = blocks("guide/scheduling.md", "python")
    (tmp_path / "functions" / "reminders.py").write_text(functions, encoding="utf-8")
    (tmp_path / "functions" / "crons.py").write_text(crons, encoding="utf-8")
    names = {"APP": tmp_path}
    exec(compile(test, "scheduling.md", "exec"), names)
    await names["test_a_reminder_comes_when_it_is_due"]()


async def test_tests_on_the_page_pass_for_a_new_project(tmp_path: Path):
    init_command(tmp_path)
    (shown,) = blocks("guide/testing.md", "python")
    module = ModuleType("shown")
    module.__file__ = str(tmp_path / "test_messages.py")
    exec(compile(shown, module.__file__, "exec"), vars(module))
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 3
    for run in tests:
        await run()
