"""Runs what README.md and docs/ show, and checks what they link to and repeat.

Every block marked python or sql is run, in the order of the page. The page finds
its database as PGQUEUE_DSN or as postgresql:///shop.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import psycopg
import pytest
import typer

from pgqueue import cli, schema

from .clusters import Cluster
from .conftest import TEMPLATE
from .schema_dump import dump_migrated
from .states import CHART, STATES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```(python|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, text, and the line that the text begins at."""
    text = page.read_text()
    return [(found[1], found[2], text.count("\n", 0, found.start(2))) for found in BLOCK.finditer(text)]


@pytest.fixture
def shop(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """An application's database, as libpq's own variables name it."""
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "postgres")
    server.execute(f"create database shop template {TEMPLATE}")
    monkeypatch.setenv("PGQUEUE_DSN", "postgresql:///shop")
    with psycopg.connect("postgresql:///shop", autocommit=True) as connection:
        yield connection
    server.execute("drop database shop with (force)")
    server.execute("drop role if exists shop_worker")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_examples_of_a_page_run(page: Path, shop: psycopg.Connection[Any]) -> None:
    names: dict[str, Any] = {"__name__": "shop"}
    run: dict[str, Callable[[str, int], object]] = {
        "python": lambda text, line: exec(code(page, text, line), names),
        "sql": lambda text, _: shop.execute(text.encode()),
    }
    for language, text, line in blocks(page):
        run[language](text, line)


def code(page: Path, text: str, line: int) -> CodeType:
    """With the lines of the page, so that a traceback points into it."""
    return compile("\n" * line + text, page, "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(ANY_BLOCK.sub("", page.read_text())):
        if ":" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", ANY_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_shows_the_tasks_that_are_tested() -> None:
    assert (ROOT / "examples" / "tasks.py").read_text() in (ROOT / "README.md").read_text()


def test_states_shows_the_chart_that_is_tested() -> None:
    rows = re.findall(r"^\| `(\w+)` (.*)\|$", (ROOT / "docs" / "states.md").read_text(), re.MULTILINE)
    cells = {verb: [cell.strip() for cell in rest.strip("| ").split("|")] for verb, rest in rows}

    assert cells == {verb: [row[state] for state in STATES] for verb, row in CHART.items()}


def test_sql_documents_every_function_of_the_contract(shop: psycopg.Connection[Any]) -> None:
    page = (ROOT / "docs" / "sql.md").read_text()
    functions: dict[str, list[str]] = dict(
        shop.execute(
            "select proname, coalesce(proargnames[:pronargs], '{}') from pg_proc"
            " where pronamespace = 'pgqueue'::regnamespace"
        ).fetchall()
    )
    for heading in re.findall(r"^### ([a-z_]+)$", page, re.MULTILINE):
        section = page.split(f"### {heading}\n")[1].split("\n#")[0]
        documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert documented == functions.pop(heading), heading
    assert not [name for name in functions if f"`{name}`" not in page]


def test_cli_documents_every_command_and_option() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    app: Any = typer.main.get_command(cli.app)
    for name, command in app.commands.items():
        assert f"`pgqueue {name}" in page
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("--")):
            assert option in page, f"{name} {option}"


def test_worker_documents_every_option() -> None:
    page = (ROOT / "docs" / "worker.md").read_text()
    app: Any = typer.main.get_command(cli.app)
    options = {option for parameter in app.commands["worker"].params for option in parameter.opts}

    assert {option for option in options if option.startswith("--")} - {"--dsn"} == set(
        re.findall(r"^\| `(--[\w-]+)` ", page, re.MULTILINE)
    )


def test_migrations_names_the_newest_revision() -> None:
    assert f"schema.steps(0, {schema.NEWEST})" in (ROOT / "docs" / "migrations.md").read_text()


@pytest.mark.heavy
def test_the_schema_dump_is_up_to_date(server: Cluster) -> None:
    """After a change of the migrations: make schema."""
    assert dump_migrated(server, "schema_dump") == (ROOT / "docs" / "schema.sql").read_text()
