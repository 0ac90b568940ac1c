"""The figures that benchmarks have measured: results.json, and README.md's table made from it.

    python benchmarks/control_plane.py --record  # as any other: measures, and keeps its figures
    python benchmarks/table.py  # writes the table again

One line a claim and processor: measured again, it is replaced.
"""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from flags import parser_of

FILE = Path(__file__).with_name("results.json")
README = Path(__file__).with_name("README.md")
COLUMNS = ("claim", "ours", "peer", "ratio", "goal", "command", "machine", "commit", "date")
ON_GPU = "GPU: "  # begins the claims about one
# Whose values are of this machine.
HIDDEN = ("--data", "--digits", "--glands", "--storage", "--out")
NO_GPU = {  # claim -> goal
    "GPU: fully connected digits, batch 30, 60 epochs": "4 s",
    "GPU: digits' CNN, 60 epochs": "5 s",
    "GPU: digits' CNN, Adam, 15 epochs": "1.3 s",
    "GPU: U-Net, 85 images, 100 epochs": "1 s",
    "GPU: digits: trials an hour, against plain script": "10 times",
    "GPU: CNN: epochs a second, several at once, against one in a CUDA graph": "3 times",
}


def record(
    claim: str,
    ours: str,
    peer: str = "–",
    ratio: str = "–",
    goal: str = "–",
    of_training: bool = False,
) -> None:
    """Keep one figure of the benchmark that runs, and write the table.

    of_training: it is of the device that trains. A GPU's is another claim than a processor's.
    """
    import torch

    from dl4ia.environment import describe_environment
    from dl4ia.training.precision import training_precision

    environment = describe_environment()
    low = training_precision(torch.device("cpu"), True) == torch.bfloat16
    processor = environment["processor"] + (" with bfloat16" if low else "")
    machine = gpu() if of_training else None
    if machine and not claim.startswith(ON_GPU):
        claim = ON_GPU + claim
    changes = " with changes" if _has_changes() else ""
    row = {
        "claim": claim,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "goal": goal,
        "command": _command(),
        "machine": machine or f"{processor}, {environment['cores']} cores",
        "commit": environment["commit"][:10] + changes,
        "date": date.today().isoformat(),
    }
    rows = _kept()
    same = [each for each in rows if _key(each) == _key(row)]
    if same:
        rows[rows.index(same[0])] = row
    else:
        rows.append(row)
    FILE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write()


def gpu() -> str | None:
    """The name of the GPU that studies and peers train on, if there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def write() -> None:
    """README.md's table, from what is kept."""
    from dl4ia.markdown import table, write_between_marks

    rows = sorted(_kept(), key=lambda row: row["claim"])
    lines = [COLUMNS, *(tuple(row[column] for column in COLUMNS) for row in rows)]
    known = {row["claim"] for row in rows}
    for claim, goal in NO_GPU.items():
        if claim not in known:
            missing = ("not measured: no GPU at hand", "–", "–", goal, "–", "–", "–", "–")
            lines.append((claim, *missing))
    write_between_marks(README, "figures", table(lines))


def _has_changes() -> bool:
    """Whether files differ from the commit, but for those that are written here."""
    command = ["git", "diff", "--name-only", "HEAD"]
    try:
        changed = subprocess.run(command, cwd=FILE.parent, capture_output=True, text=True)
    except OSError:  # no git
        return False
    written = {f"benchmarks/{file.name}" for file in (FILE, README)}
    return bool(set(changed.stdout.split()) - written)


def _kept() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(FILE.read_text("utf-8")) if FILE.exists() else []
    return rows


def _key(row: dict[str, str]) -> tuple[str, str]:
    return row["claim"], row["machine"]


def _command() -> str:
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        if word != "--record":
            words.append("…" if before in HIDDEN else word)
    return " ".join(words)


if __name__ == "__main__":
    parser_of(__doc__).parse_args()
    write()
