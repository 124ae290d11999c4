"""What is built is what stands in the repository, small, fit to be published, and harmless without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from manymetrics_cli.built_sdk import read_built_sdk
from tests.conftest import ROOT
from tests.release_check import NPM, pack_sdk, publint
from tests.sdk.conftest import NODE, SDK

pytestmark = pytest.mark.browser

PARTS = ("dist", "lib")
# The most bytes, compressed with brotli, as servers send them: of a module with all that it imports, or of a script.
MOST_BYTES = {
    "index.js": 5_000,
    "autocapture.js": 4_000,
    "web-vitals.js": 4_000,
    "errors.js": 2_000,
    "react.js": 1_000,
    "mm.js": 9_000,  # with autocapture
    "mm-web-vitals.js": 4_000,
    "mm-errors.js": 2_000,
}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    if not NODE.is_file() or not (SDK / "node_modules").is_dir():
        pytest.skip("no Node, or no sdk-js/node_modules (make sdk)")


@pytest.fixture(scope="module")
def fresh(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001  # before it is run
    """A build of now: ``dist`` and ``lib``."""
    folder = tmp_path_factory.mktemp("built")
    node("build.mjs", "--to", str(folder))
    return folder


@pytest.fixture(scope="module")
def tarball(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001  # as above
    """What would be published from a fresh clone, where only the tools are installed."""
    clone = tmp_path_factory.mktemp("clone") / "sdk-js"
    shutil.copytree(SDK, clone, ignore=shutil.ignore_patterns("node_modules", "lib"))
    (clone / "node_modules").symlink_to(SDK / "node_modules")
    return pack_sdk(tmp_path_factory.mktemp("package"), clone)


def node(*arguments: str, cwd: Path = SDK) -> str:
    done = subprocess.run([NODE, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in files_in(folder)}


def files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def with_imports(file: Path) -> set[Path]:
    """The file, and those of its folder that are loaded with it."""
    found, new = set[Path](), {file}
    while new:
        found |= new
        names = {name for one in new for name in re.findall(r"""(?:from|import) ?"\./([^"]+)\"""", one.read_text())}
        new = {file.parent / name for name in names} - found
    return found


def test_the_built_files_are_those_of_a_fresh_build(fresh: Path) -> None:
    """To update them: ``node build.mjs`` in sdk-js."""
    assert contents(fresh) == {f"{part}/{name}": text for part in PARTS for name, text in contents(SDK / part).items()}


def test_only_the_scripts_that_a_server_serves_are_committed(fresh: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "dist", "lib"], cwd=SDK, capture_output=True, text=True, check=True)

    served = {name + end for name in ("mm.js", "mm-errors.js", "mm-web-vitals.js") for end in ("", ".map")}
    assert {file.name for file in (fresh / "dist").iterdir()} == served
    assert {*tracked.stdout.split()} == {f"dist/{name}" for name in served}


@pytest.mark.parametrize("name", MOST_BYTES)
def test_what_a_page_loads_is_small(name: str, fresh: Path) -> None:
    [built] = fresh.glob(f"*/{name}")
    files = json.dumps([str(file) for file in with_imports(built)])
    compressed = "zlib.brotliCompressSync(fs.readFileSync(file)).length"

    size = int(node("-p", f"{files}.reduce((sum, file) => sum + {compressed}, 0)"))

    assert size <= MOST_BYTES[name]


@pytest.mark.parametrize("page", ["README.md", "sdk-js/README.md"])
def test_the_docs_say_how_large_the_script_is(page: str) -> None:
    size = int(node("-p", "zlib.brotliCompressSync(fs.readFileSync('dist/mm.js')).length"))

    assert f"{size / 1_000:.1f} kB with brotli" in (ROOT / page).read_text()


def test_the_source_of_what_is_built_comes_with_it(fresh: Path) -> None:
    scripts = list(fresh.glob("*/*.js"))

    assert scripts
    for script in scripts:
        map_ = json.loads(script.with_suffix(".js.map").read_text())
        assert len(map_["sourcesContent"]) == len(map_["sources"])
        assert f"sourceMappingURL={script.name}.map" in script.read_text()


def test_what_is_published_is_whole_and_no_more(tarball: Path, fresh: Path) -> None:
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}

    expected = {"README.md", "LICENSE", "package.json"}
    expected |= contents(fresh).keys() | {f"docs/{file.name}" for file in files_in(SDK / "docs")}
    assert names == expected
    assert (SDK / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_release_holds_the_scripts_under_the_name_that_servers_give_them_and_is_made_once(tmp_path: Path) -> None:
    sdk = Path(shutil.copytree(SDK / "dist", tmp_path / "dist")).parent
    shutil.copy(SDK / "package.json", sdk)
    (sdk / "released").mkdir()

    folder = sdk / node(str(SDK / "release.mjs"), cwd=sdk).strip()

    assert folder.name == read_built_sdk(sdk).build
    assert contents(folder) == {file.name: file.read_text() for file in (sdk / "dist").glob("*.js")}
    with pytest.raises(AssertionError, match="EEXIST"):
        node(str(SDK / "release.mjs"), cwd=sdk)


def test_publint_finds_nothing(tarball: Path) -> None:
    publint(tarball)


def test_what_is_packed_installs_into_an_empty_project_and_is_imported_and_bundled_there(
    tarball: Path, tmp_path: Path
) -> None:
    assert tarball.name in (SDK / "README.md").read_text()
    (tmp_path / "package.json").write_text('{"private": true}')
    [example] = re.findall(r"^```ts\n(.*?)^```$", (SDK / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "app.ts").write_text(example)
    parts = ("", "/autocapture", "/web-vitals", "/errors")
    imports = "".join(
        f'console.log(Object.keys(await import("@manymetrics/browser{part}")).length > 0);' for part in parts
    )

    node(str(NPM), "install", "--offline", "--no-audit", "--no-fund", str(tarball), cwd=tmp_path)

    assert node("--input-type=module", "-e", imports, cwd=tmp_path) == "true\n" * len(parts)
    bundle = subprocess.run(
        [SDK / "node_modules" / ".bin" / "esbuild", "app.ts", "--bundle"], cwd=tmp_path, capture_output=True, check=True
    )
    assert b"/v1/batch" in bundle.stdout
    assert b"Signed Up" in bundle.stdout


def test_types_are_found_whatever_resolves_them(tarball: Path) -> None:
    scripts = [name for name, target in package()["exports"].items() if isinstance(target, str)]
    attw = "node_modules/@arethetypeswrong/cli/dist/index.js"

    node(attw, str(tarball), "--profile", "esm-only", "--exclude-entrypoints", *scripts)


def test_the_api_reports_are_those_of_the_code(tmp_path: Path) -> None:
    node("api.mjs", str(tmp_path))

    assert contents(tmp_path) == contents(SDK / "api"), "npm run api"


def test_the_parts_that_need_no_browser() -> None:
    for folder in ("tests/unit", "tests/react"):
        node("node_modules/typescript/bin/tsc", "--noEmit", "-p", folder)
    node("tests/unit.mjs")


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{file.name}" for file in (SDK / "docs").glob("*.md"))])
def test_what_the_documentation_shows_is_what_typescript_lets_through(document: str, tmp_path: Path) -> None:
    text = (SDK / document).read_text()
    blocks = re.findall(r"^```(tsx?) ?(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for number, (kind, path, code) in enumerate(blocks):
        file = tmp_path / (path or f"block_{number}.{kind}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    modules = tmp_path / "node_modules"
    (modules / "@manymetrics").mkdir(parents=True)
    (modules / "@manymetrics" / "browser").symlink_to(SDK)
    for name in ("@types", "react"):
        (modules / name).symlink_to(SDK / "node_modules" / name)
    options = {"strict": True, "noEmit": True, "jsx": "react-jsx", "module": "esnext", "moduleResolution": "bundler"}
    options |= {"target": "es2022", "types": ["node"], "skipLibCheck": True, "exactOptionalPropertyTypes": True}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["**/*"]}))

    if blocks:
        node("node_modules/typescript/bin/tsc", "-p", str(tmp_path))
    assert bool(blocks) is (document != "docs/snippet.md")


def test_the_package_needs_no_other() -> None:
    assert "dependencies" not in package()


def test_on_a_server_it_does_nothing() -> None:
    code = """import { createClient } from "./lib/index.js";
        const client = createClient({ key: "k", host: "https://example.com" });
        client.track("A"); client.identify("u"); client.reset(); await client.flush(); console.log("fine")"""

    assert node("--input-type=module", "-e", code) == "fine\n"


def package() -> dict[str, dict[str, object]]:
    described: dict[str, dict[str, object]] = json.loads((SDK / "package.json").read_text())
    return described
