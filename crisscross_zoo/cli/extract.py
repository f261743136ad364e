"""``crisscross-extract``: features of media files."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

from crisscross_zoo.cli.common import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArgumentParser,
    add_field,
    add_version,
    error_line,
    in_options,
    print_json,
    run,
    termination_as_interrupt,
)
from crisscross_zoo.cli.config_options import field_docs
from crisscross_zoo.cli.downloads import quiet_downloads
from crisscross_zoo.errors import ConfigError, StorageError
from crisscross_zoo.extract.options import ExtractOptions
from crisscross_zoo.extract.report import Event, FileFailed, FileNote, FileWarning, Message, Progress, Summary
from crisscross_zoo.extract.run import Engine, OnError, extract_files
from crisscross_zoo.extract.shard import numbered_shard
from crisscross_zoo.features import Format
from crisscross_zoo.text import counted

PROG = "crisscross-extract"

_EXAMPLES = """\
examples:
  crisscross-extract video.mp4 --out feats.npy
  crisscross-extract video.mp4 --modality both --stride 0.25 --out feats.npz
  crisscross-extract videos/ --out feats/                 one .npz per file in the same tree, index.csv, failed.jsonl
  crisscross-extract 'clips/**/*.wav' --modality audio --clips 10 --out feats/
  crisscross-extract video.mp4 --weights random:0 --out feats.npy      random weights: no download, to try the command
  crisscross-extract videos/ --out feats/ --shard 0/8     the first of 8 shards, one per process; under torchrun or
                                                          srun, each process finds its shard without --shard

exit codes: 0 done, 1 some inputs failed (0 under torchrun, which would end the other processes), 2 bad usage,
            130 interrupted (run the same command again to resume), 141 done, but the reader of stdout was gone
"""

_FIELDS = {field.name: field for field in dataclasses.fields(ExtractOptions)}

_SPECIAL: dict[str, dict[str, Any]] = {
    **{name: {"metavar": "SECONDS"} for name in ("window", "stride", "audio_seconds", "timeout")},
    **{name: {"metavar": "N"} for name in ("clips", "frames", "batch_size")},
    "size": {"metavar": "PIXELS"},
    "workers": {"metavar": "N", "type": int},
}
"""Arguments of the options that the fields of :class:`ExtractOptions` do not have."""


def build_parser() -> ArgumentParser:
    """Return the parser of ``crisscross-extract``."""
    parser = ArgumentParser(
        prog=PROG, description="Extract CrissCross features from video and audio.", epilog=_EXAMPLES
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="media files, folders (recursive), quoted glob patterns, or URLs of these",
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="a file with more inputs, one per line; lines that begin with # are ignored",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="a .npy, .npz or .safetensors file for one input; or a folder, or its URL, for any number of inputs",
    )
    parser.add_argument(
        "--format", choices=get_args(Format), help="format of the files in an output folder (default: npz)"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="outputs keep their inputs' paths relative to this folder (default: the inputs' common folder)",
    )

    what = parser.add_argument_group("what to extract")
    _add_fields(what, "modality")
    what.add_argument(
        "--weights",
        default="audioset",
        help="name, Hub id, file or folder of a checkpoint, or random:SEED (default: audioset)",
    )
    what.add_argument(
        "--audio-weights",
        metavar="WEIGHTS",
        help="with --modality both: weights of the audio encoder (default: those of --weights)",
    )
    _add_fields(what, "revision", "cache_dir", "local_files_only", "pooling")

    clips = parser.add_argument_group("clips")
    _add_fields(clips, "window", "stride", "clips", "frames", "fps", "size", "audio_seconds", "edges")

    how = parser.add_argument_group("how to run")
    _add_fields(how, "device", "precision", "batch_size", "workers", "timeout", "decoder")
    how.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="process every N-th file, starting at number I, from 0; N such processes may write to one --out folder at"
        " once (default: all files, or the shard of a process that torchrun or srun started)",
    )
    how.add_argument(
        "--engine",
        choices=get_args(Engine),
        help="run on a cluster whose nodes share the inputs and --out (default: in this process)",
    )
    how.add_argument(
        "--address",
        help="with --engine ray: address of the cluster, or auto (default: $RAY_ADDRESS, or a cluster on this machine)",
    )
    how.add_argument(
        "--on-error",
        choices=get_args(OnError),
        default="skip",
        help="skip a bad input, or stop at it (default: skip)",
    )
    _add_fields(how, "strict")
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="extract finished outputs again, and replace files that do not hold features of the same input",
    )
    parser.add_common_options(as_json="print the summary as JSON instead of text")
    add_version(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    with termination_as_interrupt():
        return run(_main, argv, prog=PROG)


def _main(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    if args.audio_weights is not None and args.modality != "both":
        raise ConfigError("--audio-weights goes with --modality both", remedy="use --weights")
    report = _Report(args)
    with contextlib.closing(report), quiet_downloads(args.quiet):
        try:
            summary = extract_files(
                args.inputs,
                args.out,
                weights={"video": args.weights, "audio": args.audio_weights or args.weights},
                list_file=args.list,
                format=args.format,
                root=args.root,
                shard=args.shard,
                engine=args.engine,
                address=args.address,
                on_error=args.on_error,
                overwrite=args.overwrite,
                on_event=report,
                **{name: getattr(args, name) for name in _FIELDS if hasattr(args, name)},
            )
        except StorageError:
            if args.json and report.summary is not None:
                report.show(report.summary)
            raise
    report.show(summary)
    if summary.interrupted:
        return EXIT_INTERRUPTED
    if summary.failed and summary.shard.origin == "torchrun" and not summary.stopped:
        report.print_line("some inputs failed; exit code 0, because torchrun would end the other shards")
        return EXIT_DONE
    return EXIT_FAILED if summary.failed else EXIT_DONE


class _Report:
    """Prints the events of a run: progress and lines on stderr, at the end the summary on stdout."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._bar: Any = None  # created at the first Progress
        self._skipped = 0  # files that were skipped, or failed, before the first one was opened
        self._started = time.monotonic()
        self.summary: Summary | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Summary):
            self.summary = event
        elif isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, FileFailed):
            self.print_line(f"error: {error_line(event.error)}")
        elif isinstance(event, Message | FileNote | FileWarning) and not self._args.quiet:
            self.print_line(str(dataclasses.replace(event, text=in_options(event.text))))

    def print_line(self, line: str) -> None:
        """Print a line to stderr, without breaking the progress bar."""
        from tqdm import tqdm

        tqdm.write(f"{PROG}: {line}", file=sys.stderr)

    def show(self, summary: Summary) -> None:
        """Print the summary to stdout."""
        if summary.interrupted:
            done = f"{len(summary.files):,} of {counted(summary.inputs, 'file')} done"
            self.print_line(f"interrupted: {done}; run the same command again to resume")
        if self._args.json:
            print_json(summary.to_dict())
        elif not self._args.quiet and (summary.files or summary.failed_list is not None):
            print(summary)

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()

    def _show_progress(self, now: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._skipped = now.files
            self._bar = tqdm(
                total=now.of,
                initial=now.files,
                bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
                disable=self._args.quiet or not sys.stderr.isatty(),
                dynamic_ncols=True,
                smoothing=0.05,
            )
        # Files are decoded in parallel and finish at about the same time, so clips count before their file is done.
        begun = now.opened * now.clips / now.known if now.known else 0.0
        seconds = max(time.monotonic() - self._started, 1e-3)  # the clock may be that coarse
        self._bar.set_description_str(f"{now}, {now.clips / seconds:.1f} clips/s", refresh=False)
        self._bar.update(max(now.files, self._skipped + begun, self._bar.n) - self._bar.n)
        self._bar.refresh()


def _add_fields(group: argparse._ArgumentGroup, *names: str) -> None:
    docs = field_docs(ExtractOptions)
    for name in names:
        add_field(group, _FIELDS[name], docs[name], **_SPECIAL.get(name, {}))


def _shard(text: str) -> tuple[int, int]:
    """Parse ``I/N``, where I counts from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 0/8")
    index, number = map(int, match.groups())
    try:
        numbered_shard(index, number)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.remedy}") from None
    return index, number


if __name__ == "__main__":
    sys.exit(main())
