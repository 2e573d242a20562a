"""README.md from the committed `index.ipynb`: prose, code and stored outputs, pictures in
`index_files/`. Standard library only.

Nothing is executed, so the same notebook always gives the same README. Cells marked `#| hide` are
left out; `#| echo: false` keeps only a
cell's output; `#| fig-alt: words` describes its picture.
"""

import json
import re
from base64 import b64decode
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"image/jpeg": "jpg", "image/png": "png"}  # in order of preference


def text_of(field) -> str:
    "A notebook field: one string or a list of lines."
    return field if isinstance(field, str) else "".join(field)


def directives(source: str) -> dict:
    "`#| name: value` lines of a cell; a bare name has the value ''."
    return {
        name: value.strip()
        for name, value in re.findall(r"^#\|\s*([\w-]+):?[ ]*(.*)$", source, flags=re.M)
    }


def fence(text: str, language: str = "") -> str:
    "A fenced block, longer fences around text that holds one; '' for nothing."
    ticks = "`" * max([2] + [len(run) for run in re.findall(r"`{3,}", text)]) + "`"
    return f"{ticks}{language}\n{text.strip(chr(10))}\n{ticks}" if text.strip() else ""


def output_block(output: dict, alt: str, pictures: dict) -> str:
    "Markdown for one output; a picture is added to `pictures` (file name -> bytes)."
    if output["output_type"] == "error":
        raise ValueError(
            f"index.ipynb holds an error output ({output['ename']}): run it again before making the"
            " README."
        )
    if output["output_type"] == "stream":
        return fence(text_of(output["text"])) if output["name"] == "stdout" else ""
    data = output["data"]
    for kind, ending in PICTURES.items():
        if kind not in data:
            continue
        name = f"picture-{len(pictures) + 1}.{ending}"
        pictures[name] = b64decode(text_of(data[kind]))
        return f"![{alt}](index_files/{name})"
    if "text/markdown" in data:
        return text_of(data["text/markdown"]).strip()
    return fence(text_of(data.get("text/plain", "")))


def cell_blocks(cell: dict, pictures: dict) -> list:
    "The blocks of Markdown that one cell becomes."
    source = text_of(cell["source"]).strip()
    if cell["cell_type"] != "code":
        return [source]
    marks = directives(source)
    if "hide" in marks or marks.get("include") == "false":
        return []
    code = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    blocks = [] if marks.get("echo") == "false" else [fence(code, "python")]
    return blocks + [
        output_block(output, marks.get("fig-alt", "output"), pictures) for output in cell["outputs"]
    ]


def readme(notebook: dict) -> tuple:  # (Markdown, file name -> bytes)
    "The whole README and its pictures."
    pictures = {}
    blocks = [block for cell in notebook["cells"] for block in cell_blocks(cell, pictures)]
    head = "<!-- Made from index.ipynb by `python tools/readme.py`: edit the notebook. -->"
    return "\n\n".join([head] + [block for block in blocks if block.strip()]) + "\n", pictures


def main():
    "Write README.md and exactly the pictures that it shows."
    body, pictures = readme(json.loads((ROOT / "index.ipynb").read_text(encoding="utf-8")))
    folder = ROOT / "index_files"
    for old in folder.glob("*") if folder.exists() else ():
        old.unlink()
    for name, data in pictures.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (ROOT / "README.md").write_text(body, encoding="utf-8")


if __name__ == "__main__":
    main()
