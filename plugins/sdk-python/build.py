"""Makes the component: `python3 -m vendor.sdk.build`, in a plugin's folder. Into build/NAME.wasm.

The first time, and whenever requirements.txt changed, it fetches what it names into .venv, checked by its digests.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

# The world of the contract, by what `plugin.py` has.
WORLDS = {
    ("skill", "credentials"): "skill-plugin",
    ("skill",): "skill-adapter-plugin",
    ("credentials",): "credential-schema-plugin",
    ("policy",): "routing-policy-plugin",
}
EXPORTS = {
    "skill": "from vendor.sdk.component_skill import adapter\nSkillAdapter = adapter(plugin.skill, ABOUT)\n",
    "credentials": "from vendor.sdk.component_credentials import schema\n"
    'CredentialSchema = schema(plugin.credentials, getattr(plugin, "skill", None), ABOUT)\n',
    "policy": "from vendor.sdk.component_policy import policy_class\nRoutingPolicy = policy_class(plugin.policy, ABOUT)\n",
}


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    plugin = importlib.import_module("plugin")
    had = tuple(name for name in EXPORTS if hasattr(plugin, name))
    if had not in WORLDS:
        wanted = ", ".join(" and ".join(names) for names in WORLDS)
        sys.exit(f"plugin.py must have one of: {wanted}; it has: {' and '.join(had) or 'none of them'}")
    tool = environment() / "componentize-py"
    made = Path("build")
    shutil.rmtree(made / "entry", ignore_errors=True)
    (made / "entry").mkdir(parents=True)
    (made / "entry" / "entry.py").write_text(entry(project, had))
    component = made / f"{project['name']}.wasm"
    unfinished = made / f"{project['name']}.wasm.new"
    # No clock, file or socket: the gateway gives none.
    subprocess.run(
        [tool, "--quiet", "-d", "wit/v0.1", "-w", WORLDS[had], "componentize", "entry", "--stub-wasi",
         "-p", ".", "-p", str(made / "entry"), "-o", unfinished],
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    # Half a file must never look whole to who watches the folder.
    unfinished.rename(component)
    print(f"{component}: {component.stat().st_size} bytes, {WORLDS[had]}")


def entry(project: dict, had: tuple[str, ...]) -> str:
    """The component's own module: the plugin, in what the contract exports."""
    about = {
        "summary": project["description"],
        "version": project["version"],
        "licence": project["license"],
        "homepage": project.get("urls", {}).get("Homepage"),
        "readme": Path("README.md").read_text(),
    }
    return f"import plugin\nABOUT = {about!r}\n" + "".join(EXPORTS[name] for name in had)


def environment() -> Path:
    """The folder of programs that requirements.txt leads to."""
    wanted = Path("requirements.txt").read_text()
    venv, made_from = Path(".venv"), Path(".venv/made-from")
    if not made_from.is_file() or made_from.read_text() != wanted:
        print("fetching what requirements.txt names into .venv", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run(
            [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--only-binary", ":all:", "--require-hashes", "--requirement", "requirements.txt"],
            check=True,
        )
        made_from.write_text(wanted)
    return venv / "bin"


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"`{error.cmd[0]}` failed; see above")
