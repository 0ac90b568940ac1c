"""Write search_spaces/README.md from the spaces: `python -m search_spaces`."""

from pathlib import Path

from dl4ia.search_space import SpaceModule, markdown_table
from search_spaces import classification, segmentation

README = Path(__file__).parent / "README.md"
SPACES: dict[str, SpaceModule] = {"Classification": classification, "Segmentation": segmentation}


def readme() -> str:
    """The whole file, as it should be."""
    parts = [
        "# Search spaces\n\nGenerated from the Python files beside this one by "
        "`python -m search_spaces`; a test keeps it\nfresh. "
        "`--within` on a study's command line searches a part of one, such as `--within "
        "architecture=unet\nlearning_rate=0.001..0.01`. [Adding a choice, or a network]"
        "(../docs/adding-a-choice.md).\n"
    ]
    for title, searched in SPACES.items():
        table = markdown_table(searched.SPACE, searched.REPORT_MODELS | searched.REFERENCE_MODELS)
        parts.append(f"\n## {title}\n\n{table}")
    return "".join(parts)


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
