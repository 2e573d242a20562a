"""Do the tests notice a bug? Plant one small bug at a time and run the tests that should fail.

    python tools/mutants.py                 run every mutant that has no result yet, on two cores
    python tools/mutants.py --only fusion   run the mutants of tools/mutants/fusion.toml alone
    python tools/mutants.py --again         run all of them again
    python tools/mutants.py --report        print the recorded results and the survivors

A mutant is an entry of a TOML file in tools/mutants/:

    [[mutant]]
    id = "fourier-octave-higher"            # a name that no other mutant has
    where = "fusion.compute_fourier_features"       # module and qualified name (a patched method is
    Class.method)
    old = "2.0 ** torch.arange(octaves, device=xy.device)"   # an expression or statement in there
    new = "2.0 ** torch.arange(1, octaves + 1, device=xy.device)"
    tests = ["test_fusion.py"]              # the files in tests/ that should notice
    nth = 0                                 # which of several equal places, from 0 (optional)
    reason = "..."                          # why a survivor may live (optional)

`old` is compared with the syntax tree, so formatting and comments do not matter, and a module may
move as
long as the qualified name stays. The results lie beside the TOML file, in a JSON file of the same
name. The
run can be stopped at any time: the next one goes on where it stopped.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Queue
from threading import Lock

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tools" / "mutants"
LINKED = {".safetensors", ".png", ".jpg", ".jpeg", ".gguf"}  # large files that no mutant changes
TIMEOUT = 600  # seconds for the tests of one mutant; a mutant that takes longer counts as noticed
KEYS = {"id", "where", "old", "new", "tests"}


# -- finding the place


def definitions(tree: ast.Module) -> dict[str, ast.AST]:
    """Map the qualified name of every function, class and assigned name of a module to its node."""
    found = {}

    def visit(nodes, prefix):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = node
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[prefix + patched_class(node) + node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]:
                    found.setdefault(prefix + name.id, node)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                visit(node.body, prefix)

    visit(tree.body, "")
    return found


def patched_class(node: ast.FunctionDef) -> str:
    """Return 'Class.' for a function under fastcore's @patch, otherwise an empty string."""
    is_patched = any("patch" in ast.unparse(d) for d in node.decorator_list)
    first = node.args.args[0] if node.args.args else None
    if not is_patched or first is None or first.annotation is None:
        return ""
    return ast.unparse(first.annotation) + "."


def modules() -> list[Path]:
    """List the modules of the package, relative to the project."""
    paths = sorted((ROOT / "ferretlite").rglob("*.py"))
    return [p.relative_to(ROOT) for p in paths if p.name != "_modidx.py"]


@cache
def names_in(path: Path) -> frozenset[str]:
    return frozenset(definitions(parse(path)))


def locate(where: str) -> tuple[Path, str]:
    """Return the module and the qualified name inside it.

    Raise ValueError unless exactly one fits.
    """
    module, _, name = where.partition(".")
    homes = [p for p in modules() if name in names_in(p)]
    named = [p for p in homes if p.stem == module]
    homes = named or homes
    if len(homes) != 1:
        raise ValueError(f"{where}: found {len(homes)} definitions, expected one")
    return homes[0], name


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def snippet(text: str) -> ast.AST:
    """Parse an expression or, failing that, one statement."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        statements = ast.parse(text.strip()).body
        if len(statements) != 1:
            raise ValueError(f"found {len(statements)} statements, expected one: {text}") from None
        return statements[0]


def shape(node: ast.AST) -> str:
    """The node as text without positions, the same for a name that is read and one that is set."""
    return re.sub(r"ctx=(Store|Del)\(\)", "ctx=Load()", ast.dump(node))


class Plant(ast.NodeTransformer):
    """Replaces the nth node that looks like `old`."""

    def __init__(self, old: str, new: str, nth: int):
        self.old, self.nth, self.seen = shape(snippet(old)), nth, 0
        self.new = snippet(new)

    def visit(self, node):
        if shape(node) == self.old:
            self.seen += 1
            if self.seen == self.nth + 1:
                return as_statement(self.new) if isinstance(node, ast.stmt) else self.new
        return self.generic_visit(node)


def as_statement(node: ast.AST) -> ast.stmt:
    return node if isinstance(node, ast.stmt) else ast.Expr(node)


def mutate(mutant: dict) -> tuple[Path, str, str]:
    """Return the module, its source with the bug planted, and a fingerprint of the changed
    definition.
    """
    path, name = locate(mutant["where"])
    tree = parse(path)
    target = definitions(tree)[name]
    plant = Plant(mutant["old"], mutant["new"], mutant.get("nth", 0))
    before = ast.unparse(target)
    changed = plant.generic_visit(target)
    if "nth" not in mutant and plant.seen != 1 or plant.seen <= mutant.get("nth", 0):
        raise ValueError(
            f"{mutant['id']}: found {plant.seen} places like {mutant['old']!r} in {path}, expected"
            " one (or give nth)"
        )
    ast.fix_missing_locations(tree)
    after = ast.unparse(changed)
    if before == after:
        raise ValueError(f"{mutant['id']}: the mutant changes nothing")
    return path, ast.unparse(tree), hashlib.sha256(after.encode()).hexdigest()[:16]


def read_mutants(only: list[str]) -> dict[str, list[dict]]:
    """Read the mutants of each TOML file. Raise ValueError for missing keys and repeated names."""
    found, ids = {}, set()
    for path in sorted(MUTANTS.glob("*.toml")):
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
        for entry in entries:
            if missing := KEYS - entry.keys():
                raise ValueError(
                    f"{path.name}, {entry.get('id')}: missing {', '.join(sorted(missing))}"
                )
            if entry["id"] in ids:
                raise ValueError(f"{path.name}: the id {entry['id']} is used twice")
            ids.add(entry["id"])
        if not only or path.stem in only:
            found[path.stem] = entries
    return found


# -- running the tests


def copy_project(folder: Path) -> None:
    """Copy what git knows of the project.

    Modules are written as they look after parsing, as mutants are.
    """
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        source, target = ROOT / name, folder / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in LINKED or source.is_symlink():
            target.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, target)
    for path in modules():
        (folder / path).write_text(ast.unparse(parse(path)), encoding="utf-8")


class Tests:
    """Runs test files in a copy of the project.

    A process with torch and transformers loaded forks for every run.
    """

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None

    def start(self) -> None:
        env = {**os.environ, "CI": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
        env |= {"FERRETLITE_NO_SHRINKING": "1"}  # hypothesis need not look for the smallest example
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            cwd=self.folder,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, tests: list[str], accepted: tuple = ()) -> tuple[str, str]:
        """Return ("killed" | "survived" | "timeout", first failure) for test files or tests.

        `accepted`: exit codes of pytest that count as 0, such as 4 for a test that is gone.
        """
        if self.process is None:
            self.start()
        self.process.stdin.write(json.dumps(tests) + "\n")
        self.process.stdin.flush()
        code, output = json.loads(self.process.stdout.readline())
        if code is None:
            return "timeout", ""
        if code in (0, *accepted):
            return "survived", ""
        failure = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", output, re.M)
        if code not in (1, 2) or failure is None and "Error" not in output:
            raise RuntimeError(f"pytest ended with {code}:\n{output[-4000:]}")
        return "killed", failure[1] if failure else "import"

    def stop(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


def work() -> None:
    """Read names of tests, run them in a fork, write (exit code, output), again and again."""
    import datasets  # noqa: F401 (loaded here once, for all forks)
    import hypothesis  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pytest
    import torch
    from transformers import CLIPVisionModel, Dinov2Model, LlamaForCausalLM, Trainer  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            child = os.fork()
            if child == 0:
                os.setsid()
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                tests = [f"tests/{t}" for t in json.loads(line)]
                code = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", "--tb=no", *tests])
                sys.stdout.flush()
                os._exit(int(code))
            code = wait(child)
            log.seek(0)
            print(json.dumps([code, log.read()]), file=answers, flush=True)


def wait(child: int) -> int | None:
    """Return a process's exit code; None where it had to be stopped after TIMEOUT seconds."""
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def try_mutant(runner: Tests, mutant: dict, source: str, path: Path, killer: str) -> dict:
    """Plant the bug in a copy of the project, run the tests and take the bug out again."""
    target, began = runner.folder / path, time.perf_counter()
    clean = target.read_text(encoding="utf-8")
    target.write_text(source, encoding="utf-8")
    try:
        status, by = "survived", ""
        if (
            killer and (runner.folder / "tests" / killer.split("::")[0]).exists()
        ):  # what noticed it last time
            status, by = runner.run([killer], accepted=(4, 5))
        if status == "survived":
            status, by = runner.run(mutant["tests"])
    finally:
        target.write_text(clean, encoding="utf-8")
    return dict(status=status, by=by, seconds=round(time.perf_counter() - began, 1))


def write_results(stem: str, results: dict) -> None:
    path = MUTANTS / f"{stem}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_results(stem: str) -> dict:
    path = MUTANTS / f"{stem}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def run(mutants: dict[str, list[dict]], again: bool, jobs: int, trusted: bool) -> None:
    """Run what has no result yet, what changed, and what survived; write each result at once."""
    results = {stem: read_results(stem) for stem in mutants}
    for stem, entries in mutants.items():
        known = {m["id"] for m in entries}
        results[stem] = {k: v for k, v in results[stem].items() if k in known}
    todo, lock, copies, runners = [], Lock(), Queue(), []
    for stem, entries in mutants.items():
        for mutant in entries:
            path, source, mark = mutate(mutant)
            old = results[stem].get(mutant["id"], {})
            done = old.get("status") in ("killed", "timeout") and old.get("mark") == mark
            if again or not done:
                todo.append((stem, mutant, path, source, mark, old.get("by", "")))
    todo = spread(todo)
    print(f"{len(todo)} mutants to run", flush=True)
    if not todo:
        return
    with tempfile.TemporaryDirectory() as temporary:
        for k in range(jobs):
            folder = Path(temporary) / str(k)
            copy_project(folder)
            runners.append(Tests(folder))
            copies.put(runners[-1])
        if not trusted:
            check_baseline(runners[0], sorted({t for _, m, *_ in todo for t in m["tests"]}))

        def one(job):
            stem, mutant, path, source, mark, killer = job
            runner = copies.get()
            try:
                result = try_mutant(runner, mutant, source, path, killer)
            finally:
                copies.put(runner)
            with lock:
                results[stem][mutant["id"]] = result | dict(mark=mark)
                write_results(stem, results[stem])
                print(
                    f"{result['status']:9s}{result['seconds']:6.1f} s  {stem}: {mutant['id']} "
                    f" {result['by']}",
                    flush=True,
                )

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(one, todo))
        for runner in runners:
            runner.stop()


def spread(jobs: list) -> list:
    """Order jobs so that a run which is stopped early has tried some of every file."""
    places = {}
    for job in jobs:
        places.setdefault(job[0], []).append(job)
    keyed = [(i / len(held), job[0], job) for held in places.values() for i, job in enumerate(held)]
    return [job for *_, job in sorted(keyed, key=lambda k: k[:2])]


def check_baseline(runner: Tests, tests: list[str]) -> None:
    """Raise RuntimeError where a test fails without a bug: it would notice every mutant."""
    print(f"without a bug: {', '.join(tests)}", flush=True)
    status, by = runner.run(tests)
    if status != "survived":
        raise RuntimeError(f"{by or 'a test'} fails without a bug ({status}): mend it first")


# -- the report


def report(mutants: dict[str, list[dict]]) -> None:
    """Print the share of mutants noticed, per file and in all, and the survivors with their
    reasons.
    """
    total = run_now = noticed = 0
    survivors, missing = [], []
    print(f"{'file':20s}{'mutants':>9s}{'run':>9s}{'noticed':>9s}")
    for stem, entries in mutants.items():
        results = read_results(stem)
        states = {}
        for mutant in entries:
            result = results.get(mutant["id"], {})
            _, _, mark = mutate(mutant)
            states[mutant["id"]] = result.get("status") if result.get("mark") == mark else None
            if states[mutant["id"]] is None:
                missing.append(f"{stem}: {mutant['id']}")
            elif states[mutant["id"]] == "survived":
                survivors.append(
                    f"{stem}: {mutant['id']} ({mutant['where']}):"
                    f" {mutant.get('reason', 'no reason given')}"
                )
        killed = sum(s in ("killed", "timeout") for s in states.values())
        tried = sum(s is not None for s in states.values())
        total, run_now, noticed = total + len(entries), run_now + tried, noticed + killed
        print(f"{stem:20s}{len(entries):9d}{tried:9d}{killed:9d}")
    share = noticed / max(1, run_now)
    print(f"{'all':20s}{total:9d}{run_now:9d}{noticed:9d}  {share:.1%} of those run are noticed")
    for title, lines in (("Survivors", survivors), ("Without a current result", missing)):
        if lines:
            print(f"\n{title}:", *lines, sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="names of TOML files in tools/mutants"
    )
    parser.add_argument("--again", action="store_true", help="also run mutants that have a result")
    parser.add_argument(
        "--report", action="store_true", help="print the recorded results and run nothing"
    )
    parser.add_argument(
        "--trusted", action="store_true", help="the tests are known to pass without a bug"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    options = parser.parse_args()
    if options.worker:
        work()
        return
    mutants = read_mutants(options.only)
    if not options.report:
        run(mutants, options.again, options.jobs, options.trusted)
    report(mutants)


if __name__ == "__main__":
    main()
