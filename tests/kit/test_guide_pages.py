"""The pages of the kit are programs: their files are written to a folder, and their tests run."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "guide" / "kit").glob("*.md"))
_NAMED = re.compile(r"^`([\w/.]+\.py)`[^\n]*:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```python\n", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_example_of_a_page_works(page: Path, tmp_path: Path):
    text = page.read_text(encoding="utf-8")
    files = dict(_NAMED.findall(text))
    assert len(files) == len(_FENCE.findall(text)), "a block is not named, or named twice"
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
    tests = [name for name in files if name.startswith("test_")]
    assert bool(tests) is bool(files)
    for name in tests:
        spec = importlib.util.spec_from_file_location(f"page_{page.stem}", tmp_path / name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = [each for each in vars(module) if each.startswith("test_")]
        assert found
        for each in found:
            test = getattr(module, each)
            assert inspect.iscoroutinefunction(test)
            await test()


def test_every_module_has_a_page():
    modules = {
        path.stem.replace("_", "-") for path in (ROOT / "reactive_store" / "kit").glob("*.py")
    }
    inner = {"--init--", "layers", "chat", "claude"}
    linked = (ROOT / "docs" / "guide" / "kit" / "README.md").read_text(encoding="utf-8")
    missing = [name for name in modules - inner if f"]({name}.md)" not in linked]
    assert missing == []
