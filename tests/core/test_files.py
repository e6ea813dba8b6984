"""`replace_file`: whole or not there, whoever writes at once; links and rights stay."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxsec.core._files import digest_of, entries, replace_file


def test_writers_at_once_leave_one_of_theirs(tmp_path):
    path = tmp_path / "file"
    texts = [f"{i}" * 5000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: replace_file(path, texts[i % 4]), range(200)))
    assert path.read_text() in texts and os.listdir(tmp_path) == ["file"]


def test_links_and_rights_stay(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    replace_file(path, "old")
    path.chmod(0o600)
    link.symlink_to(path)
    replace_file(link, b"new")
    assert link.is_symlink() and path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert digest_of(path) == digest_of(link) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


def test_a_failure_leaves_the_former_file(tmp_path):
    path = tmp_path / "file"
    replace_file(path, "old")
    with pytest.raises(TypeError):
        replace_file(path, 3)
    assert os.listdir(tmp_path) == ["file"] and path.read_text() == "old"


def test_entries_of_what_is_no_file_or_gone(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    assert set(entries(tmp_path)) == {"a", "b"} and entries(tmp_path / "c") == {}
