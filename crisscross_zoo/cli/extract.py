"""``crisscross-extract``: features of media files."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crisscross_zoo.cli.common import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ArgumentParser,
    add_version,
    count,
    positive,
    print_json,
    run,
    termination_as_interrupt,
)
from crisscross_zoo.cli.downloads import quiet_downloads
from crisscross_zoo.config import MODALITIES, POOLINGS
from crisscross_zoo.errors import ConfigError, MediaNotFoundError, OutputError, StorageError
from crisscross_zoo.extract.options import DECODERS, check_clip_options
from crisscross_zoo.extract.share import Share, shard, started_share
from crisscross_zoo.files import remote
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.files.find import MEDIA_SUFFIXES, VIDEO_SUFFIXES
from crisscross_zoo.media.windows import EDGES
from crisscross_zoo.settings import PRECISIONS

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor
    from crisscross_zoo.extract.outputs import Lists, Outcome

PROG = "crisscross-extract"

_EXAMPLES = """\
examples:
  crisscross-extract video.mp4 --out feats.npy
  crisscross-extract video.mp4 --modality both --stride 0.25 --out feats.npz
  crisscross-extract videos/ --out feats/                 one .npz a file, the same tree, index.csv, failed.jsonl
  crisscross-extract 'clips/**/*.wav' --modality audio --clips 10 --out feats/
  crisscross-extract video.mp4 --weights random:0 --out feats.npy      no download, for trying things out
  crisscross-extract videos/ --out feats/ --shard 0/8     the first of eight processes that share the files; or start
                                                          it with torchrun or srun, which number their processes

exit codes: 0 done, 1 some inputs failed (0 under torchrun, which would end the other processes), 2 bad usage,
            130 interrupted (run the same command again to go on), 141 done, but the reader of stdout was gone
"""

_REMARKS = 3
"""For how many files the same remark is made one by one."""

_EXTRACTOR_OPTIONS = """
device pooling precision window stride clips frames fps size audio_seconds edges batch_size workers timeout decoder
strict revision cache_dir local_files_only
"""


def build_parser() -> ArgumentParser:
    """Return the parser of ``crisscross-extract``."""
    parser = ArgumentParser(
        prog=PROG, description="Extract CrissCross features from video and sound.", epilog=_EXAMPLES
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="media files, folders (recursive) or glob patterns; or their URLs",
    )
    parser.add_argument(
        "--list", metavar="FILE", help="a file with one input a line; lines that begin with # do not count"
    )
    parser.add_argument(
        "--out",
        required=True,
        help=".npy, .npz or .safetensors for one input, or a folder (or its URL) for any number",
    )
    parser.add_argument(
        "--format", choices=("npz", "safetensors", "npy"), help="of files in a folder (default: npz)"
    )
    parser.add_argument(
        "--root", metavar="DIR", help="mirror the tree from here (default: the inputs' common folder)"
    )

    what = parser.add_argument_group("what to extract")
    what.add_argument("--modality", choices=(*MODALITIES, "both"), default="video", help="(default: video)")
    what.add_argument(
        "--weights", default="audioset", help="name, Hub id, file, or random:SEED (default: audioset)"
    )
    what.add_argument("--audio-weights", metavar="WEIGHTS", help="with --modality both: others for the sound")
    what.add_argument("--revision", help="Hub revision of the weights")
    what.add_argument("--cache-dir", help="where downloaded weights are kept (default: the Hub's cache)")
    what.add_argument("--local-files-only", action="store_true", help="download nothing")
    what.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="(default: the checkpoint's own; linear, as in the paper, for those listed)",
    )

    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--window", type=positive, metavar="SECONDS", help="length of a clip of either modality"
    )
    clips.add_argument(
        "--stride", type=positive, metavar="SECONDS", help="between clips (default: end to end)"
    )
    clips.add_argument(
        "--clips", type=count, metavar="N", help="N uniformly spread clips in place of dense ones"
    )
    clips.add_argument(
        "--frames", type=count, metavar="N", help="frames in a video clip (default: the weights', 8)"
    )
    clips.add_argument("--fps", type=positive, help="frames a second (default: the weights', 16)")
    clips.add_argument(
        "--size",
        type=count,
        metavar="PIXELS",
        help="side of the square crop (default: the weights', 224; demo: 112)",
    )
    clips.add_argument(
        "--audio-seconds",
        type=positive,
        metavar="SECONDS",
        help="length of a sound clip (default: the weights', 2)",
    )
    clips.add_argument(
        "--edges",
        choices=EDGES,
        default="keep",
        help="with --modality both, of rows at the ends of a file whose two windows are not centred on the same"
        " instant (default: keep)",
    )

    how = parser.add_argument_group("how to run")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    how.add_argument("--precision", choices=PRECISIONS, default="fp32", help="(default: fp32)")
    how.add_argument("--batch-size", type=count, metavar="N", help="clips a batch (default: by device)")
    how.add_argument(
        "--workers", type=int, metavar="N", help="decoding processes, 0 for none (default: by device)"
    )
    how.add_argument(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="end a decoding process from which nothing comes for so long, also while it fetches a file or looks"
        " through it; its file fails (default: 600)",
    )
    how.add_argument(
        "--decoder",
        choices=DECODERS,
        default="pyav",
        help="of pictures; torchcodec decodes on a CUDA device (default: pyav)",
    )
    how.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="take every N-th file beginning with number I, from 0; N such processes may run at once on one --out"
        " folder (default: all files, or the share of a process that torchrun or srun started)",
    )
    how.add_argument(
        "--engine",
        choices=("ray",),
        help="run on a cluster whose nodes share the inputs and --out (default: in this process)",
    )
    how.add_argument(
        "--address",
        help="with --engine ray: the cluster's, or auto (default: $RAY_ADDRESS, or one of this machine alone)",
    )
    how.add_argument(
        "--on-error", choices=("skip", "stop"), default="skip", help="at a bad input (default: skip)"
    )
    how.add_argument("--strict", action="store_true", help="truncated or damaged inputs fail")
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="redo finished outputs; replace files that are something else",
    )
    parser.add_common_options(as_json="print a summary as JSON in place of text")
    add_version(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    with termination_as_interrupt():
        return run(_main, argv, prog=PROG)


def _main(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    args.out = remote.without_file_scheme(args.out)
    args.root = None if args.root is None else remote.without_file_scheme(args.root)
    from crisscross_zoo.files.find import find_media

    names = ("window", "stride", "clips", "frames", "fps", "size", "audio_seconds", "edges")
    check_clip_options(args.modality, **{name: getattr(args, name) for name in names})
    share = args.shard or started_share()
    single = _is_single_output(args)
    _check_engine(args, share, single=single)
    if single and args.modality == "both" and args.out.endswith(".npy"):
        raise ConfigError("--out: .npy holds one modality", remedy="write .npz or .safetensors, or a folder")
    if single and share.count > 1:
        raise ConfigError(
            f"--out {args.out} is one file, and {share.count} processes share the inputs ({share.origin})",
            remedy="name a folder: --out feats/",
        )
    suffixes = VIDEO_SUFFIXES if args.modality == "video" else MEDIA_SUFFIXES
    left_out: dict[str, int] = {}
    paths = find_media(args.inputs, list_file=args.list, suffixes=suffixes, on_left_out=left_out.__setitem__)
    if single and len(paths) > 1:
        raise ConfigError(
            f"--out {args.out} is for one input, there are {len(paths)}", remedy="name a folder: --out feats/"
        )
    # Torch and weights need not be loaded to say so.
    if single and not args.json and not remote.exists(paths[0]):
        raise MediaNotFoundError("no such file", remedy="check the path", path=paths[0])
    outputs, folder = _outputs(args, paths, single=single)
    if not remote.is_url(args.out):
        if single:
            from crisscross_zoo.features import check_name

            check_name(args.out)
        _check_writable(folder or Path(args.out))
    if share.count > 1:
        outputs = {p: outputs[p] for p in share.of(paths)}
    job = _Job(args, outputs, folder, share)
    for place, number in left_out.items() if share.index == 0 else ():
        files = f"{number} sound {'file' if number == 1 else 'files'}"
        job.say(f"note: {place}: {files} left out (--modality {args.modality})")
    if share.count > 1:
        job.say(
            f"share {share.index} of {share.count} ({share.origin}): {len(outputs)} of {len(paths)} files"
        )
    return job.run()


class _Job:
    """One run of the command over its inputs."""

    def __init__(
        self, args: argparse.Namespace, outputs: dict[str, Path], folder: Path | None, share: Share
    ) -> None:
        self.args = args
        self.outputs = outputs
        self.folder = folder
        self.share = share
        self.done: dict[str, Mapping[str, Any]] = {}  # what the lists need of each finished input's metadata
        self.failures: dict[str, dict[str, str]] = {}
        self.skipped = 0
        self.clips = 0
        self.remarks: Counter[str] = Counter()
        self.lists_in = folder  # where this run's lists are
        self.started = time.monotonic()

    def run(self) -> int:
        from crisscross_zoo.extract.outputs import Lists

        part = self.share.name() if self.share.count > 1 else None
        lists = None if self.folder is None else Lists(self.folder, part)
        interrupted = stopped = False
        full: StorageError | None = None
        try:
            for outcome in self._outcomes():
                self._take(outcome)
                stopped = bool(self.failures) and self.args.on_error == "stop"
                if stopped:
                    break
        except KeyboardInterrupt:
            interrupted = True
        except StorageError as error:
            full = error
        whole = not (interrupted or stopped or full)
        if lists is not None and (whole or part is None):  # others take a part that is there for whole
            with contextlib.suppress(*[] if full is None else [OutputError]):  # they may still fit
                self._write_lists(lists)
        if full is not None and not self.args.json:
            raise full
        self._report(interrupted=interrupted or full is not None)
        if full is not None:
            raise full
        if interrupted:
            return EXIT_INTERRUPTED
        if self.failures and self.share.origin == "torchrun" and not stopped:
            self.say(
                "some inputs failed; exit code 0, since torchrun would end the other shares", always=True
            )
            return EXIT_DONE
        return EXIT_FAILED if self.failures else EXIT_DONE

    def _outcomes(self) -> Iterator[Outcome]:
        from crisscross_zoo.extract.outputs import known_outcome, save

        if self.args.engine == "ray":
            yield from self._outcomes_of_ray()
            return
        device = self.share.pick_device(self.args.device)
        with quiet_downloads(self.args.quiet):
            extractor = _make_extractor(self.args, device)
        todo = []
        for given, output in self.outputs.items():
            there = known_outcome(given, output, extractor.identity, overwrite=self.args.overwrite)
            if there is None:
                todo.append(given)
            else:
                yield there
        with self._bar(len(self.outputs) - len(todo)) as (on_file, on_progress):
            for path, result in extractor.stream(todo, on_progress=on_progress):
                yield save(str(path), self.outputs[str(path)], result)
                on_file()

    def _outcomes_of_ray(self) -> Iterator[Outcome]:
        from crisscross_zoo.extract.ray import extract_on_ray

        assert self.folder is not None
        with quiet_downloads(self.args.quiet):
            # What does not fit is known, and weights are downloaded, before any worker starts.
            _make_extractor(self.args, "cpu")
        outcomes = extract_on_ray(
            _extractor_options(self.args),
            self.outputs,
            self.folder,
            address=self.args.address,
            overwrite=self.args.overwrite,
            say=self.say,
        )
        # Ray prints pages on each loss to stdout, which is for results. They are in its logs, and told in one line.
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.closing(outcomes),
            self._bar(0) as (on_file, _),
        ):
            for outcome in outcomes:
                yield outcome
                on_file()

    @contextlib.contextmanager
    def _bar(self, done: int) -> Iterator[tuple[Callable[[], None], Callable[[int, int], None]]]:
        """Show the progress, of which ``done`` files are done, and give what tells it of a file and of clips."""
        from tqdm import tqdm

        many = len(self.outputs) > 1
        with tqdm(
            total=len(self.outputs) if many else None,
            initial=done if many else 0,
            unit="file" if many else "clip",
            disable=self.args.quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.05,
        ) as bar:

            def on_progress(done: int, known: int) -> None:
                if many:
                    seconds = time.monotonic() - self.started
                    bar.set_postfix_str(f"{done / seconds:.1f} clips/s", refresh=False)
                    bar.update(0)
                else:
                    bar.total = known
                    bar.update(done - bar.n)

            yield (lambda: bar.update(1) if many else None), on_progress

    def _take(self, outcome: Outcome) -> None:
        path, summary = outcome.path, outcome.summary
        if outcome.error is not None:
            self.failures[path] = failure_row(path, outcome.error, modality=self.args.modality)
            self.say(f"error: {outcome.error}", always=True)
        if summary is None:
            return
        self.done[path] = summary
        if outcome.skipped:
            self.skipped += 1
            return
        self.clips += sum(rows for rows, _ in summary["shapes"].values())
        for modality in summary["missing"]:
            found = "audio" if modality == "video" else "video"
            self._remark(path, f"has no {modality}; its {found} features are written")
        for modality in summary["padded"]:
            what, filled = (
                ("pictures", "they repeat") if modality == "video" else ("sound", "silence follows it")
            )
            self._remark(path, f"its {what} end before one clip does; {filled}")
        for note in summary["notes"]:
            self._remark(path, note)
        for warning in summary["warnings"]:
            self.say(f"warning: {path}: {warning}; the features are of what could be read")

    def _remark(self, path: str, text: str) -> None:
        """Say what may be as wanted, for some files; :meth:`_report` says for how many more."""
        self.remarks[text] += 1
        if self.remarks[text] <= _REMARKS:
            self.say(f"note: {path}: {text}")

    def say(self, line: str, *, always: bool = False) -> None:
        """Print a line to stderr, without breaking the progress bar; with --quiet only what is said ``always``."""
        from tqdm import tqdm

        if always or not self.args.quiet:
            tqdm.write(f"{PROG}: {line}", file=sys.stderr)

    def _write_lists(self, lists: Lists) -> None:
        from crisscross_zoo.extract.outputs import PARTS_NAME, Lists

        assert self.folder is not None
        for path, metadata in self.done.items():
            lists.add(path, self.outputs[path], metadata)
        for path, failure in self.failures.items():
            lists.add_failure(path, self.outputs[path], failure)
        try:
            with remote.using_store(self.folder, "written"):
                lists.write()
                if self.share.count > 1:
                    parts = [self.share.name(k) for k in range(self.share.count)]
                    if not Lists.merge(self.folder, parts, by=self.share.name()):
                        self.lists_in = self.folder / PARTS_NAME / self.share.name()
                        self.say("the lists of all shares are written when the last one is done")
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror})", remedy="check the folder", path=self.folder
            ) from None

    def _report(self, *, interrupted: bool) -> None:
        seconds = time.monotonic() - self.started
        for text, number in self.remarks.items():
            if number > _REMARKS:
                self.say(f"note: the same of {number - _REMARKS} more: {text}")
        if interrupted:
            self.say(
                f"interrupted: {len(self.done)} of {len(self.outputs)} files done; run the same command again to go on",
                always=True,
            )
        if self.args.json:
            print_json(
                {
                    "out": self.args.out,
                    "done": len(self.done) - self.skipped,
                    "skipped": self.skipped,
                    "failed": len(self.failures),
                    "interrupted": interrupted,
                    "clips": self.clips,
                    "seconds": round(seconds, 3),
                    "outputs": [
                        {"input": p, "output": str(o)}
                        | {
                            name: self.done[p][name]
                            for name in ("shapes", "warnings", "notes", "missing", "padded")
                        }
                        for p, o in self.outputs.items()
                        if p in self.done
                    ],
                    "failures": list(self.failures.values()),
                }
            )
        elif not self.args.quiet:
            if self.folder is not None:
                where = f" (see {self.lists_in / 'failed.jsonl'})" if self.failures and self.lists_in else ""
                done = len(self.done) - self.skipped
                print(
                    f"{self.args.out}: {done} {'file' if done == 1 else 'files'} done, {self.skipped} already there,"
                    f" {len(self.failures)} failed{where}; {self.clips} clips in {seconds:.1f} s"
                )
            for path, metadata in self.done.items() if self.folder is None else ():
                shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in metadata["shapes"].items())
                note = ": already there with these settings" if self.skipped else f", {seconds:.1f} s"
                print(f"{self.args.out}: {shapes} of {path}{note}")


def _extractor_options(args: argparse.Namespace) -> dict[str, Any]:
    if args.audio_weights is not None and args.modality != "both":
        raise ConfigError("--audio-weights goes with --modality both", remedy="use --weights")
    weights = {"video": args.weights, "audio": args.audio_weights or args.weights}
    options = {name: getattr(args, name) for name in _EXTRACTOR_OPTIONS.split()}
    return {"weights": weights, "modality": args.modality, **options}


def _make_extractor(args: argparse.Namespace, device: str) -> FeatureExtractor:
    from crisscross_zoo.extract.extractor import FeatureExtractor

    return FeatureExtractor(**{**_extractor_options(args), "device": device})


def _check_engine(args: argparse.Namespace, share: Share, *, single: bool) -> None:
    if args.engine is None:
        if args.address is not None:
            raise ConfigError("--address goes with --engine ray", remedy="add it, or leave the address out")
    elif single:
        raise ConfigError(f"--engine {args.engine} writes to a folder", remedy="name one: --out feats/")
    elif share.count > 1:
        raise ConfigError(
            f"--engine {args.engine} shares the files out itself", remedy="start it once, without --shard"
        )


def _is_single_output(args: argparse.Namespace) -> bool:
    from crisscross_zoo.features import FORMATS

    out = Path(args.out)
    # os.path answers False where pathlib raises: names too long.
    if os.path.isdir(out) or args.out.endswith(("/", "\\")):  # noqa: PTH112
        return False
    if out.suffix.lower() in FORMATS and out.suffix not in FORMATS:
        raise ConfigError(f"--out: {out.suffix} is not written", remedy=f"write it as {out.suffix.lower()}")
    if out.suffix in FORMATS:
        if args.format is not None and f".{args.format}" != out.suffix:
            raise ConfigError(
                f"--format {args.format} and --out {args.out} differ", remedy="leave out --format"
            )
        return True
    if out.suffix.lower() in (
        ".pt",
        ".pth",
        ".pkl",
        ".h5",
        ".hdf5",
        ".csv",
        ".json",
        ".txt",
        ".parquet",
        ".mat",
    ):
        raise ConfigError(
            f"--out: {out.suffix} is not written", remedy=f"name {', '.join(FORMATS)} or a folder"
        )
    return False


def _outputs(
    args: argparse.Namespace, paths: list[str], *, single: bool
) -> tuple[dict[str, Path], Path | None]:
    """Map inputs to outputs, and return the output folder if it is one."""
    from crisscross_zoo.extract.outputs import mirror
    from crisscross_zoo.files.find import common_folder, is_folder

    out = remote.output_path(args.out)
    if remote.is_remote(out) and "npy" in (args.format, out.suffix[1:]):
        raise ConfigError(".npy and its .json are not written to a URL", remedy="use npz or safetensors")
    if single:
        return {paths[0]: out}, None
    if not remote.is_remote(out) and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {args.out} is a file, not a folder", remedy="name another")
    if args.format == "npy" and args.modality == "both":
        raise ConfigError("--format npy holds one modality", remedy="use npz or safetensors")
    # What does not exist says nothing about the tree: a mistyped name must not move every output.
    there = [p for p in paths if remote.exists(p)]
    folders = [p for p in map(remote.without_file_scheme, args.inputs) if is_folder(p)]
    root = (
        Path(remote.absolute(args.root))
        if args.root is not None
        else common_folder([*folders, *there] or paths)
    )
    mirrored = mirror(there, root, out, f".{args.format or 'npz'}")
    nowhere = out / ".missing"  # never written: these inputs fail
    return {p: mirrored.get(p, nowhere) for p in paths}, out


def _check_writable(out: Path) -> None:
    """Say at once, not after the first file's work, that ``out`` cannot be written."""
    nearest = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not os.access(nearest, os.W_OK) or (nearest != out and not nearest.is_dir()):
        reason = "may not be written to" if nearest.is_dir() or nearest == out else "is a file, not a folder"
        raise OutputError(f"cannot be written: {nearest} {reason}", remedy="choose another --out", path=out)


if __name__ == "__main__":
    sys.exit(main())
