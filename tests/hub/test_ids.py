from __future__ import annotations

import pytest

from medusa_decoding.hub import HubId


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("Own-er/na.me_2", "Own-er/na.me_2", None),
        ("owner/name@v1", "owner/name", "v1"),
        ("owner/name@refs/pr/3", "owner/name", "refs/pr/3"),
    ],
)
def test_a_repository_and_its_revision(text: str, repo: str, revision: str | None) -> None:
    found = HubId.parse(text)
    assert found == HubId(repo, revision)
    assert (str(found), found.owner if found else "") == (text, repo.split("/")[0])


@pytest.mark.parametrize(
    "text",
    ["", "name", "name@v1", "a/b/c", "./heads", "/heads/x", "../heads", "a/..", "a/b@", "a/b@v 1", "a/b@c@d"],
)
def test_what_is_no_name_on_the_hub(text: str) -> None:
    assert HubId.parse(text) is None
