"""Words from outside in a Markdown text, read back with a renderer."""

import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dl4ia.markdown import plain, table, write_between_marks

MARKS = st.text("\\`*_{}[]()<>#+-.!~=|&$:@;/\"' \t\n019awx", max_size=24)
ANY = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=24)
HOSTILE = "<script>alert(1)</script> | ![x](javascript:alert) `a` $b$ www.c.org\n# **d** &lt;"
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# What GitHub, the dashboard and MLflow make of a text besides; anything of it must be escaped.
BEYOND = re.compile(
    r"(?<!\\)\$|https?://|(?<![^\s*_~(])www\.|(?<!&#x40);@|:[\w+-]+:(?!//)", re.IGNORECASE
)


@given(MARKS | ANY)
@settings(max_examples=2000, deadline=None)
@example("1. one")
@example("+ one")
@example("--- one")
@example(HOSTILE)
def test_words_are_shown_as_they_are(text: str) -> None:
    for before in ("", "A trial: "):
        opening, inline, closing = RENDERER.parse(f"{before}{plain(text)} and so on")
        assert (opening.type, inline.type) == ("paragraph_open", "inline")
        assert closing.type == "paragraph_close"
        assert shown(inline) == f"{before}{' '.join(text.split())} and so on".lstrip()
    assert not BEYOND.search(plain(text))


@given(st.lists(st.tuples(MARKS, MARKS), min_size=2, max_size=5))
@settings(max_examples=500, deadline=None)
def test_tables_keep_their_columns(rows: list[tuple[str, str]]) -> None:
    tokens = RENDERER.parse(table(rows))
    assert tokens[0].type == "table_open"
    cells = [shown(token).strip() for token in tokens if token.type == "inline"]
    assert cells == [" ".join(cell.split()) for row in rows for cell in row]


def test_figures_stand_on_the_right() -> None:
    lines = table([["rank", "model"], ["1", HOSTILE], ["12", "b"]]).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert lines[1] == "| --: | :-- |"
    assert plain("a\n\n\tb") == "a b"


def shown(inline: Token) -> str:
    """What is read of a text; fails where any of it is not shown as text."""
    children = inline.children or []
    assert {child.type for child in children} <= {"text"}
    return "".join(child.content for child in children)


def test_only_what_needs_it_is_escaped() -> None:
    for text in ("1.3 s, 2-fold (best: +0.05), model 1!", "exercise_1_4"):
        assert plain(text) == text


def test_a_table_is_written_where_a_link_leads_with_its_line_ends(tmp_path: Path) -> None:
    """And a file of another's beside it stays."""
    whole = tmp_path / "README.md"
    whole.write_bytes(b"Title\r\n<!-- x: begin -->\r\nold\r\n<!-- x: end -->\r\nMore\r\n")
    whole.chmod(0o640)
    (tmp_path / "README.part").write_text("mine")
    (tmp_path / "link.md").symlink_to("README.md")
    write_between_marks(tmp_path / "link.md", "x", "a\nb")
    assert (tmp_path / "link.md").is_symlink()
    expected = b"Title\r\n<!-- x: begin -->\r\na\r\nb\r\n<!-- x: end -->\r\nMore\r\n"
    assert whole.read_bytes() == expected and whole.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "README.part").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3
