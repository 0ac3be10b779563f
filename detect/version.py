"""The version of the package and the name it is installed by, without the face of the package."""

__version__ = "0.1.0"

# The package index has another project of the name of this module.
DISTRIBUTION = "detect-toolkit"


def install_command(extra: str) -> str:
    """The pip command that adds an extra to this installation: from a clone, or from a wheel."""
    import json
    from importlib import metadata
    from pathlib import Path

    root = Path(__file__).parents[1]
    try:
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}"
        is_clone = json.loads(origin).get("dir_info", {}).get("editable", False)
    except metadata.PackageNotFoundError:
        is_clone = True  # it runs from its source
    if not is_clone:
        return f'pip install "{DISTRIBUTION}[{extra}]"'
    return f'pip install -e "{"." if root == Path.cwd() else root}[{extra}]"'
