"""What the documents show is true: code compiles, the first app runs, pages match the code."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import re
from pathlib import Path

import pytest

from reactive_store.limits import Limits
from tests import reference_pages
from tests.e2e.client_script import JS, node_script
from tests.e2e.server_process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/*.md")]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_python_blocks_compile(path: Path):
    for body in blocks(path, "python"):
        compile(body, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_inside_the_repository_lead_somewhere(path: Path):
    targets = [t for t in _LINK.findall(path.read_text(encoding="utf-8")) if "://" not in t]
    assert [target for target in targets if not (path.parent / target).exists()] == []


async def test_first_app_of_the_readme_runs(tmp_path: Path):
    readme = ROOT / "README.md"
    app = tmp_path / "myapp"
    (app / "functions").mkdir(parents=True)
    schema, functions = blocks(readme, "python")[:2]
    (app / "schema.py").write_text(schema, encoding="utf-8")
    (app / "functions" / "messages.py").write_text(functions, encoding="utf-8")
    (client,) = blocks(readme, "javascript")
    assert "http://127.0.0.1:3210" in client
    with ServerProcess(app, tmp_path / "data") as server:
        script = client.replace("http://127.0.0.1:3210", server.url)
        # The page goes on for ever; the test ends when the message was shown.
        script = script.replace(
            "console.log(messages.map((m) => m.body))",
            'console.log(JSON.stringify({ event: "shown", bodies: messages.map((m) => m.body) }))',
        )
        assert '"shown"' in script
        script += "\nsetTimeout(() => process.exit(0), 1000);\n"
        # Beside the installed packages, so that Node finds them.
        place = JS / f"readme-{tmp_path.name}.tmp.mjs"
        place.write_text(script, encoding="utf-8")
        try:
            async with asyncio.timeout(30), node_script(place.name) as running:
                while (await running.expect("shown"))["bodies"] != ["Hello"]:
                    pass
        finally:
            place.unlink()


def test_every_limit_is_documented_with_its_default():
    page = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))
    assert rows == {field.name: f"{field.default:,}" for field in dataclasses.fields(Limits)}


@pytest.mark.parametrize("page", sorted(reference_pages.PAGES), ids=lambda page: page.name)
def test_page_made_from_the_code_is_up_to_date(page: Path):
    assert page.read_text(encoding="utf-8") == reference_pages.PAGES[page](), "run `make docs`"


def test_every_word_of_the_glossary_has_a_place_in_the_code():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| `([\w/.]+)` \|", page, re.MULTILINE)
    assert len(rows) > 20
    words = [word for word, _ in rows]
    assert words == sorted(set(words)), "each word once, in order"
    missing = [place for _, place in rows if not (ROOT / "reactive_store" / place).exists()]
    assert missing == []


def test_decisions_are_short_numbered_and_complete():
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:4]} "), page.name
        assert text.count("\n") <= 40, page.name
        for part in ("Situation", "Decision", "Consequences", "Rejected"):
            assert f"**{part}.**" in text, f"{page.name}: no {part}"


def test_every_target_of_the_makefile_is_explained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    explained = set(re.findall(r"^([\w-]+):.*## ", makefile, re.MULTILINE))
    assert set(phony.group(1).split()) == explained
