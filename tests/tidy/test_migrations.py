"""Migrations only add: the release before must go on working on the same database."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from apus.platform import migrations

SCRIPTS = sorted((migrations.SCRIPTS / "versions").glob("*.py"))
ADDING = {"add_column", "create_table", "create_index", "get_bind", "bulk_insert"}


def refusals(source: str) -> list[str]:
    """What in a migration would drop, rename or narrow."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "op":
            continue
        verb = node.func.attr
        words = {word.arg: word.value for word in node.keywords}
        if verb not in ADDING:
            found.append(f"line {node.lineno}: op.{verb} does more than add")
        if verb == "create_index" and "unique" in words:
            found.append(f"line {node.lineno}: a unique index refuses what the release before may write")
        if verb == "add_column" and not _may_be_left_out(node.args[1]):
            found.append(f"line {node.lineno}: a new column is nullable or has a server_default")
    return found


def _may_be_left_out(column: ast.expr) -> bool:
    assert isinstance(column, ast.Call)
    words = {word.arg: word.value for word in column.keywords}
    nullable = words.get("nullable")
    return (
        "server_default" in words or nullable is None or (isinstance(nullable, ast.Constant) and bool(nullable.value))
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_migration_only_adds(path: Path) -> None:
    assert refusals(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        ('op.add_column("t", sa.Column("a", sa.String(9)))', True),
        ('op.add_column("t", sa.Column("a", sa.String(9), nullable=False, server_default=""))', True),
        ('op.add_column("t", sa.Column("a", sa.String(9), nullable=False))', False),
        ('op.create_index("i", "t", ["a"])', True),
        ('op.create_index("i", "t", ["a"], unique=True)', False),
        ('op.drop_column("t", "a")', False),
        ('op.rename_table("t", "u")', False),
        ('op.alter_column("t", "a", nullable=False)', False),
        ('op.execute("DROP TABLE t")', False),
    ],
)
def test_the_lint_knows(line: str, is_fine: bool) -> None:
    assert (refusals(line) == []) is is_fine


def test_head_is_the_newest_script() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(migrations.SCRIPTS)).get_heads() == [migrations.HEAD]
