"""`.env.local`: three names are kept up to date, everything else is the user's."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.cli.env_file import deployment_variables, merge_env_file, write_env_file

VARIABLES = deployment_variables("http://127.0.0.1:3210", "name|key")
WHOLE = (
    "CONVEX_URL=http://127.0.0.1:3210\n"
    "CONVEX_SELF_HOSTED_URL=http://127.0.0.1:3210\n"
    "CONVEX_SELF_HOSTED_ADMIN_KEY=name|key\n"
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", WHOLE),
        (WHOLE, WHOLE),
        ("MINE=1", "MINE=1\n" + WHOLE),
        ("CONVEX_URL=http://127.0.0.1:1\n", WHOLE),
        (
            "export CONVEX_URL = 'http://localhost:1' # dev\r\n",
            "export CONVEX_URL = http://127.0.0.1:3210 # dev\r\n"
            + WHOLE.split("\n", 1)[1].replace("\n", "\r\n"),
        ),
        (
            WHOLE.replace("http://127.0.0.1:3210\n", '"http://127.0.0.1:3210"\n'),
            WHOLE.replace("http://127.0.0.1:3210\n", '"http://127.0.0.1:3210"\n'),
        ),
        (
            "CONVEX_URL=https://mine.convex.cloud # production\n",
            "# CONVEX_URL=https://mine.convex.cloud # production\n"
            "CONVEX_URL=http://127.0.0.1:3210 # production\n" + WHOLE.split("\n", 1)[1],
        ),
        ("# CONVEX_URL=x\nVITE_CONVEX_URL=y\n", "# CONVEX_URL=x\nVITE_CONVEX_URL=y\n" + WHOLE),
    ],
)
def test_the_file_is_merged(before: str, after: str):
    assert merge_env_file(before, VARIABLES) == after
    assert merge_env_file(after, VARIABLES) == after


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=5))
def test_lines_of_the_user_stay(lines: list[str]):
    text = "".join(f"X{line}\n" for line in lines)
    assert merge_env_file(text, VARIABLES).startswith(text)


def test_the_file_is_written_only_when_it_changes_and_for_its_owner_alone(tmp_path):
    path = tmp_path / ".env.local"
    assert write_env_file(path, VARIABLES)
    assert path.read_text() == WHOLE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not write_env_file(path, VARIABLES)
