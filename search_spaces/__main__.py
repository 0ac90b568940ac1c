"""Write search_spaces/README.md from the spaces: `python -m search_spaces`."""

from pathlib import Path

from dl4ia.search_space import markdown_table
from search_spaces import segmentation

README = Path(__file__).parent / "README.md"


def readme() -> str:
    """The whole file, as it should be."""
    return (
        "# Search spaces\n\nGenerated from the Python files beside this one by "
        "`python -m search_spaces`; a test keeps it fresh.\n\n## Segmentation\n\n"
        + markdown_table(
            segmentation.SPACE, segmentation.REPORT_MODELS | segmentation.REFERENCE_MODELS
        )
    )


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
