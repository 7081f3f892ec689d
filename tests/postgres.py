"""A PostgreSQL server of the tests' own, where its programs are installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SUPERUSER = "postgres"


def _programs() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``; Debian keeps those of each version off the path."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server that listens on a Unix socket alone, and yield its URL up to the database's name.

    Skips the test where PostgreSQL or its driver is not installed.
    """
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # short: a socket's path may have 107 bytes
    data, options = folder / "data", {}
    if os.geteuid() == 0:  # the server refuses to run as root
        options["user"] = "nobody"
        shutil.chown(folder, "nobody")

    def run(program: str, *arguments: str) -> None:
        command: list[Any] = [programs / program, "-D", data, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **options)

    run("initdb", "--auth=trust", f"--username={SUPERUSER}", "--no-sync")
    settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "start", "--wait", "-l", str(folder / "log"), "-o", settings)
    try:
        yield f"postgresql://{SUPERUSER}@/{{}}?host={folder}"
    finally:
        run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(folder)


def new_database(url: str, name: str) -> str:
    """Make a database and return its URL."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    # Databases aren't made within a transaction.
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    return url.format(name)
