"""``crisscross-weights``: list, download, convert, verify and publish checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crisscross_zoo.cli.common import EXIT_DONE, EXIT_FAILED, ArgumentParser, add_version, print_json, run
from crisscross_zoo.cli.downloads import quiet_downloads
from crisscross_zoo.config import MODALITIES, Modality
from crisscross_zoo.errors import CrissCrossError, WeightsNotAvailableError
from crisscross_zoo.weights.manifest import (
    MANIFEST_VARIABLE,
    PACKAGE_FOLDER,
    WeightsEntry,
    list_weights,
    manifest_path,
)

if TYPE_CHECKING:
    from crisscross_zoo.weights.load import FoundCheckpoint

PROG = "crisscross-weights"

_ABOUT = "List, download, convert, verify and publish checkpoints."
_EPILOG = f"""\
Downloads go to the Hub's cache (HF_HOME, HF_HUB_CACHE) or, where a checkpoint is not on the Hub, to
$HF_HOME/assets/crisscross-zoo. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE work as for any Hub model.
{MANIFEST_VARIABLE} names another weights_manifest.json, for mirrors and your own checkpoints.
exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted"""
_PUBLISH_EPILOG = f"""\
The Hub fields are written to the manifest in use: run this from a checkout with an editable install
(pip install -e .), or name your own manifest in {MANIFEST_VARIABLE}. Otherwise the installed copy changes,
and the one in the checkout does not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_main, argv, prog=PROG)


def _main(argv: Sequence[str] | None) -> int:
    options = build_parser().parse_args(argv)
    command = cast(Callable[[argparse.Namespace], int], options.command)
    return command(options)


def build_parser() -> ArgumentParser:
    """Return the parser of ``crisscross-weights``."""
    parser = ArgumentParser(prog=PROG, description=_ABOUT, epilog=_EPILOG)
    add_version(parser)
    add = parser.add_commands()

    sub = add(
        "list",
        _list,
        "list the named checkpoints, with the paper's numbers",
        "print every field of the manifest as JSON",
    )
    sub.add_argument("--modality", choices=MODALITIES, help="list only this modality (default: both)")

    sub = add(
        "download",
        _download,
        "download a checkpoint into the cache",
        "print name, modality, path and sha256 as JSON",
    )
    sub.add_argument("name", metavar="NAME", help="a name that list shows, or a Hub id org/name[@revision]")
    sub.add_argument(
        "--modality", choices=MODALITIES, help="download only this modality (default: all that the name has)"
    )

    sub = add(
        "convert",
        _convert,
        "convert a PyTorch checkpoint to safetensors",
        "print path and sha256 as JSON",
    )
    sub.add_argument(
        "source", metavar="SRC", help="a .pth.tar.zip, .pth.tar, .pth or .pt file, or safetensors"
    )
    sub.add_argument("--out", metavar="FILE", required=True, help="the .safetensors file to write")
    sub.add_argument(
        "--modality",
        choices=MODALITIES,
        help="modality that the checkpoint must have, or that is extracted from a full model",
    )
    sub.add_argument("--overwrite", action="store_true", help="replace the file if it exists")

    sub = add(
        "verify",
        _verify,
        "check the hash, names, shapes and values of checkpoints",
        "print one object per checkpoint as JSON",
    )
    sub.add_argument(
        "targets",
        metavar="NAME or PATH",
        nargs="*",
        help="checkpoints to check (default: every name that is in the cache)",
    )

    sub = add(
        "publish",
        _publish,
        "push a checkpoint to the Hub and record it in the manifest",
        "print the Hub fields of the manifest as JSON",
    )
    sub.epilog = _PUBLISH_EPILOG
    sub.add_argument("name", metavar="NAME", help="a name that list shows")
    sub.add_argument("--modality", choices=MODALITIES, required=True, help="modality of the checkpoint")
    sub.add_argument(
        "--repo", metavar="ORG/NAME", required=True, help="Hub repository, created if it does not exist"
    )
    sub.add_argument(
        "--dry-run", metavar="DIR", type=Path, help="only write the repository's files to this folder"
    )
    sub.add_argument("--private", action="store_true", help="create the repository as private")
    return parser


def _list(options: argparse.Namespace) -> int:
    entries = list_weights(options.modality)
    if options.json:
        print_json([entry.to_dict() for entry in entries])
        return EXIT_DONE
    rows = [("NAME", "MODALITY", "PRETRAINED ON", "LICENSE", "FROM", "RESULTS (top-1, %)")]
    rows += [
        (
            entry.name,
            entry.modality,
            f"{entry.pretrained_on.dataset}, {entry.pretrained_on.size}",
            entry.license,
            _source(entry),
            ", ".join(
                f"{r.benchmark} {r.value}" + (f" ({r.note})" if r.note else "")
                for r in entry.results
                if r.is_top1 and r.value is not None
            ),
        )
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return EXIT_DONE


def _source(entry: WeightsEntry) -> str:
    if entry.status == "planned":
        return "planned"
    if entry.bundled is not None:
        return "installed"
    return entry.hub.repo or "authors' release"


def _download(options: argparse.Namespace) -> int:
    from crisscross_zoo.weights.load import find_checkpoint

    modalities = [entry.modality for entry in list_weights(options.modality) if entry.name == options.name]
    results = []
    with quiet_downloads(options.quiet):
        for modality in modalities or [options.modality]:
            found = find_checkpoint(modality or "video", options.name)  # a Hub id's modality is in its config
            results.append(_check(found, modality))
    if options.json:
        print_json(results)
    else:
        for result in results:
            print(result["path"])
    return EXIT_DONE


def _convert(options: argparse.Namespace) -> int:
    from crisscross_zoo.weights.convert import convert_checkpoint

    sha256 = convert_checkpoint(options.source, options.out, options.modality, overwrite=options.overwrite)
    if options.json:
        print_json({"path": options.out, "sha256": sha256})
    else:
        print(f"{sha256}  {options.out}")
    return EXIT_DONE


def _verify(options: argparse.Namespace) -> int:
    from crisscross_zoo.checkpoints.hub import Access
    from crisscross_zoo.weights.load import find_checkpoint

    entries = list_weights()
    names = {entry.name for entry in entries}
    wanted: list[tuple[str, Modality | None]] = [(t, None) for t in options.targets if t not in names]
    wanted += [(e.name, e.modality) for e in entries if not options.targets or e.name in options.targets]
    results: list[dict[str, Any]] = []
    planned = {(e.name, e.modality) for e in entries if e.status == "planned" and not options.targets}
    for target, modality in wanted:
        if (target, modality) in planned:
            results.append({"weights": target, "modality": modality, "status": "planned"})
            continue
        try:
            found = find_checkpoint(modality or "video", target, access=Access(local_files_only=True))
            results.append({**_check(found, modality), "status": "ok"})
        except CrissCrossError as error:
            absent = isinstance(error, WeightsNotAvailableError) and not options.targets
            status = "absent" if absent else "failed"
            results.append({"weights": target, "modality": modality, "status": status, "error": str(error)})
    if options.json:
        print_json(results)
    else:
        for result in results:
            about = {"ok": "{sha256}  {path}", "failed": "{error}"}.get(result["status"], "")
            line = f"{result['status']:<7} {result['weights']}  {result['modality'] or ''}  "
            print((line + about.format_map(result)).rstrip())
    return EXIT_FAILED if any(result["status"] == "failed" for result in results) else EXIT_DONE


def _publish(options: argparse.Namespace) -> int:
    from crisscross_zoo.weights.publish import publish, write_folder

    with quiet_downloads(options.quiet):
        if options.dry_run is not None:
            hub = write_folder(options.dry_run, options.name, options.modality, repo=options.repo)
        else:
            hub = publish(options.name, options.modality, repo=options.repo, private=options.private)
    if options.dry_run is not None:
        done = f"{options.dry_run}: {hub.file} with sha256 {hub.sha256}; nothing was pushed"
    else:
        done = f"{hub.repo}@{hub.revision}: {hub.file} with sha256 {hub.sha256}"
    if options.json:
        print_json(dataclasses.asdict(hub))
    else:
        print(done)
    if options.dry_run is None and not options.quiet:
        manifest = manifest_path()
        installed = ": an installed copy; copy them into the manifest of a checkout"
        note = installed if manifest.resolve().parent == PACKAGE_FOLDER else ""
        print(f"{PROG}: the Hub fields were written to {manifest}{note}", file=sys.stderr)
    return EXIT_DONE


def _check(found: FoundCheckpoint, modality: Modality | None) -> dict[str, Any]:
    """Open a checkpoint strictly, and return its name, modality, path and sha256."""
    from crisscross_zoo.weights.load import open_checkpoint

    encoder = open_checkpoint(found, modality)
    return {
        "weights": found.weights_id,
        "modality": encoder.config.modality,
        "path": str(found.path),
        "sha256": encoder.weights_sha256,
    }


if __name__ == "__main__":
    sys.exit(main())
