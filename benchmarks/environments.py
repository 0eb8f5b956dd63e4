"""What the peers run in: a virtual environment, a folder of Node packages, a Redis. None of it is the product's."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from tests.clusters import free_port

HERE = Path(__file__).parent
PEERS = HERE / "peers"
INSTALLED = HERE / ".installed"


def python() -> Path:
    """The interpreter of the Python peers."""
    home = INSTALLED / "python"
    if not (home / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(PEERS / "requirements.txt")], check=True, stderr=subprocess.DEVNULL)
    return home / "bin" / "python"


def node() -> Path | None:
    """The folder whose node_modules the Node peers need; None where there is no npm."""
    if which("npm") is None:
        return None
    home = INSTALLED / "node"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text((PEERS / "package.json").read_text())
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home)]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    return home / "node_modules"


@contextmanager
def redis() -> Iterator[str | None]:
    """A Redis of our own that writes its log to disk once a second, its default where it is durable at all."""
    if which("redis-server") is None:
        yield None
        return
    port = free_port()
    with TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes"]
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()
