"""``crisscross-pretrain``: index, prepare or pack a data set, pretrain on it, export the encoders."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

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
)
from crisscross_zoo.cli.config_options import add_config_options, config_overrides
from crisscross_zoo.config import MODALITIES
from crisscross_zoo.pretrain.presets import OBJECTIVES, PRESETS, make_config
from crisscross_zoo.text import counted

PROG = "crisscross-pretrain"

_ABOUT = "Pretrain CrissCross on your own videos: index them, train, export the encoders."
_EPILOG = """\
crisscross-pretrain index videos/ --out videos.parquet
crisscross-pretrain kinetics400 --data videos.parquet --out run/
torchrun --nproc-per-node 8 -m crisscross_zoo.cli.pretrain kinetics400 --data videos.parquet --out run/
crisscross-pretrain prepare videos.parquet --out small/      copies that are read fast; then --data small/
crisscross-pretrain pack videos.parquet --out shards/        few large files; then --data shards/
crisscross-pretrain demo --out demo/        on a small generated data set, on a CPU, in minutes
crisscross-pretrain generate --out clips/ --clips 8000      generated clips; then index them, and train with world
To resume a run that was stopped, repeat the command.
exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted (a checkpoint is written)"""

_ABOUT_PRESET = {
    "kinetics-sound": "the paper's settings for Kinetics-Sound, 22K clips (Table S10)",
    "kinetics400": "the paper's settings for Kinetics400, 240K clips (Table S10)",
    "audioset": "the paper's settings for AudioSet, 1.8M clips (Table S10)",
    "demo": "generate a small data set, pretrain narrow encoders on it, and evaluate them",
    "world": "this package's settings for generated clips (see generate)",
}
_NO_OPTION = ("preset", "objective", "video.pooling", "audio.pooling")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_main, argv, prog=PROG)


def _main(argv: Sequence[str] | None) -> int:
    options = build_parser().parse_args(argv)
    command = cast(Callable[[argparse.Namespace], int], options.command)
    with _warnings_to_stderr(quiet=options.quiet):
        return command(options)


def build_parser() -> ArgumentParser:
    """Return the parser of ``crisscross-pretrain``."""
    parser = ArgumentParser(prog=PROG, description=_ABOUT, epilog=_EPILOG)
    add_version(parser)
    add = parser.add_commands()

    sub = add(
        "index", _index, "scan files once, and record which can be trained on", "print the report as JSON"
    )
    sub.add_argument(
        "inputs", metavar="INPUT", nargs="*", help="video files, folders (recursive) or quoted glob patterns"
    )
    sub.add_argument("--list", metavar="FILE", dest="list_file", help="a file with more inputs, one per line")
    sub.add_argument(
        "--out", metavar="FILE", required=True, help="the index to write, such as videos.parquet"
    )
    sub.add_argument(
        "--layout",
        default="files",
        choices=("files", "kinetics400", "kinetics-sound", "audioset"),
        help="files: any files (default); the others: ROOT/SPLIT/CLASS/VIDEO of that data set",
    )
    sub.add_argument("--split", help="the SPLIT folder, such as train")
    sub.add_argument(
        "--min-seconds",
        metavar="SECONDS",
        type=float,
        help="minimum length of a usable file (default: 1.1)",
    )
    sub.add_argument(
        "--workers", metavar="N", type=count, help="number of scanning workers (default: one per core)"
    )
    sub.add_argument(
        "--rescan", action="store_true", help="scan every file again, also those of an existing index"
    )

    sub = add(
        "prepare", _prepare, "re-encode an index's videos for fast training", "print the report as JSON"
    )
    sub.add_argument("index", metavar="INDEX", help="an index that `index` wrote")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder for the copies and their index")
    sub.add_argument("--data-root", metavar="DIR", help="new folder of the index's files, if they were moved")
    sub.add_argument(
        "--short-side",
        metavar="PIXELS",
        type=count,
        help="maximum length of the shorter side; videos are not enlarged (default: 256)",
    )
    sub.add_argument("--fps", type=positive, help="maximum frame rate (default: that of the video)")
    sub.add_argument(
        "--gop", metavar="N", type=count, help="maximum key frame interval, in frames (default: 15)"
    )
    sub.add_argument("--crf", type=float, help="quality of libx264, 0 to 51, lower is better (default: 23)")
    sub.add_argument(
        "--fast-decode",
        action=argparse.BooleanOptionalAction,
        help="encode with libx264's fastdecode tune, which takes a seventh more bytes (default: yes)",
    )
    sub.add_argument(
        "--workers", metavar="N", type=count, help="number of encoding workers (default: one per core)"
    )

    sub = add("pack", _pack, "pack an index's files into a few large shards", "print the counts as JSON")
    sub.add_argument("index", metavar="INDEX", help="an index that `index` wrote")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder for the shards: new, or empty")
    sub.add_argument(
        "--workers", metavar="N", type=count, default=1, help="number of packing workers (default: 1)"
    )
    sub.add_argument("--shard-mb", metavar="N", type=count, help="size of a shard in MiB (default: 256)")

    sub = add(
        "generate", _generate, "write generated clips, to pretrain on", "print the number of clips as JSON"
    )
    sub.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="folder for the clips; existing files are kept, of any seed",
    )
    sub.add_argument("--clips", metavar="N", type=count, required=True, help="number of clips of 5 s")
    sub.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the clips (default: 0)")
    sub.add_argument(
        "--workers", metavar="N", type=count, help="number of worker processes (default: one per core)"
    )

    for name, preset in PRESETS.items():
        as_json = "print the report as JSON" if name == "demo" else "print how the run ended as JSON"
        sub = add(name, _demo if name == "demo" else _pretrain, _ABOUT_PRESET[name], as_json)
        sub.add_argument("--out", metavar="DIR", required=True, help="folder of the run")
        if name == "demo":
            sub.add_argument(
                "--seeds",
                metavar="N",
                type=count,
                default=1,
                help="number of runs, with seeds 0, 1, ... (default: 1)",
            )
            sub.add_argument("--train-clips", metavar="N", type=count, help="training clips per class")
            sub.add_argument("--test-clips", metavar="N", type=count, help="test clips per class")
        else:
            sub.add_argument(
                "--data",
                metavar="PATH",
                required=True,
                help="the index that `index` wrote, or the folder that `prepare` or `pack` wrote",
            )
            sub.add_argument(
                "--data-root", metavar="DIR", help="new folder of the index's files, if they were moved"
            )
        sub.add_argument(
            "--objective",
            default="crisscross",
            choices=tuple(OBJECTIVES),
            help="terms of the loss (default: all)",
        )
        sub.add_argument(
            "--released", action="store_true", help="follow the released code where it differs from the paper"
        )
        sub.set_defaults(preset=name)
        add_config_options(sub, preset, skip=(*_NO_OPTION, *(("seed",) if name == "demo" else ())))

    sub = add(
        "export", _export, "write the encoders of a run's newest checkpoint", "print their folders as JSON"
    )
    sub.add_argument("run", metavar="RUN", help="folder of a run")
    sub.add_argument("--out", metavar="DIR", help="folder for the encoders (default: the run's)")
    return parser


def _index(options: argparse.Namespace) -> int:
    from crisscross_zoo.pretrain.index import MIN_SECONDS, build_index

    with _progress("file", quiet=options.quiet) as progress:
        report = build_index(
            options.inputs,
            Path(options.out),
            list_file=options.list_file,
            layout=options.layout,
            split=options.split,
            workers=options.workers,
            min_seconds=MIN_SECONDS if options.min_seconds is None else options.min_seconds,
            on_progress=progress,
            rescan=options.rescan,
        )
    if options.json:
        print_json(vars(report))
    elif not options.quiet:
        print("\n".join(report.summary_lines()))
    return EXIT_DONE if report.usable else EXIT_FAILED


def _generate(options: argparse.Namespace) -> int:
    from crisscross_zoo.demo.scenes import make_world

    with _progress("clip", quiet=options.quiet) as progress:
        make_world(
            options.out, options.clips, seed=options.seed, workers=options.workers, on_progress=progress
        )
    if options.json:
        print_json({"out": options.out, "clips": options.clips})
    elif not options.quiet:
        print(f"{options.out}: {counted(options.clips, 'clip')}")
    return EXIT_DONE


def _prepare(options: argparse.Namespace) -> int:
    from crisscross_zoo.media.encode import CopyOptions
    from crisscross_zoo.pretrain.index import read_index
    from crisscross_zoo.pretrain.prepare import prepare

    names = ("short_side", "fps", "gop", "crf", "fast_decode")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    index = read_index(options.index, root=options.data_root)
    with _progress("file", quiet=options.quiet) as progress:
        report = prepare(
            index, options.out, CopyOptions(**given), workers=options.workers, on_progress=progress
        )
    if options.json:
        print_json(vars(report))
    elif not options.quiet:
        print(report.summary())
    return EXIT_FAILED if report.failed or not report.usable else EXIT_DONE


def _pack(options: argparse.Namespace) -> int:
    from crisscross_zoo.pretrain.index import read_index
    from crisscross_zoo.pretrain.shards import SHARD_BYTES, import_litdata, pack

    import_litdata()  # before read_index, which would name another extra
    index = read_index(options.index)
    shard_bytes = SHARD_BYTES if options.shard_mb is None else options.shard_mb << 20
    shards = pack(index, options.out, workers=options.workers, shard_bytes=shard_bytes)
    if options.json:
        print_json({"out": options.out, "files": len(index), "shards": shards})
    elif not options.quiet:
        print(f"{options.out}: {counted(len(index), 'file')} in {counted(shards, 'shard')}")
    return EXIT_DONE


def _pretrain(options: argparse.Namespace) -> int:
    config = _config(options)
    from crisscross_zoo.pretrain.loop import pretrain
    from crisscross_zoo.pretrain.shards import open_data

    files, data_id = open_data(options.data, root=options.data_root)
    first = os.environ.get("RANK", "0") == "0"
    with _steps(quiet=options.quiet or not first) as on_progress:
        outcome = pretrain(
            config,
            files,
            options.out,
            data_id=data_id,
            on_start=None if options.quiet else lambda line: print(f"{PROG}: {line}", file=sys.stderr),
            on_progress=on_progress,
        )
    if not first:
        return EXIT_DONE if outcome.finished else EXIT_INTERRUPTED
    if options.json:
        print_json({**vars(outcome), "run": str(outcome.run)})
    elif outcome.finished and not options.quiet:
        trained = [m for m in MODALITIES if (outcome.run / m).is_dir()]
        where = f"encoders are in its folders {' and '.join(trained)}"
        if len(trained) == 1:
            where = f"encoder is in its folder {trained[0]}"
        print(f"{outcome.run}: {counted(outcome.total_steps, 'step')} done; the {where}")
    if not outcome.finished:
        how = (
            "with a checkpoint; run the same command again to resume"
            if outcome.step
            else "before any checkpoint"
        )
        print(f"{PROG}: stopped at step {outcome.step} of {outcome.total_steps}, {how}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _demo(options: argparse.Namespace) -> int:
    config = _config(options)
    from crisscross_zoo.demo.run import report_lines, run_demo

    with _steps(quiet=options.quiet) as on_progress:
        report = run_demo(
            Path(options.out),
            config,
            seeds=options.seeds,
            train_clips=options.train_clips,
            test_clips=options.test_clips,
            on_message=None if options.quiet else lambda line: print(f"{PROG}: {line}", file=sys.stderr),
            on_progress=on_progress,
        )
    if report is None:
        print(f"{PROG}: stopped, with a checkpoint; run the same command again to resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    if options.json:
        print_json(report)
    else:
        print("\n".join(report_lines(report)))
    if not options.quiet:
        runs = ", ".join(str(Path(options.out) / f"seed{seed}") for seed in range(options.seeds))
        print(
            f"{PROG}: the encoders are in {runs}, for --weights; the report is in {options.out}",
            file=sys.stderr,
        )
    return EXIT_DONE


def _export(options: argparse.Namespace) -> int:
    from crisscross_zoo.pretrain.export import export_encoders

    folders = export_encoders(options.run, options.out or options.run)
    if options.json:
        print_json({modality: str(folder) for modality, folder in folders.items()})
    else:
        print("\n".join(map(str, folders.values())))
    return EXIT_DONE


def _config(options: argparse.Namespace) -> Any:
    overrides = config_overrides(options, PRESETS[options.preset], skip=_NO_OPTION)
    return make_config(
        options.preset, objective=options.objective, released=options.released, overrides=overrides
    )


@contextlib.contextmanager
def _progress(unit: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr; yield its callback, ``(done, total)``."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}s", disable=quiet, file=sys.stderr, dynamic_ncols=True) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


@contextlib.contextmanager
def _steps(*, quiet: bool) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Show a progress bar of a run's steps on stderr, with the loss and the embeddings' std; yield its callback."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def update(step: int, total: int, row: dict[str, float]) -> None:
            if not bars or bars[-1].total != total or step < bars[-1].n:
                bars.append(
                    stack.enter_context(
                        tqdm(
                            unit=" steps",
                            total=total,
                            initial=step,
                            disable=quiet,
                            file=sys.stderr,
                            dynamic_ncols=True,
                        )
                    )
                )
            bar = bars[-1]
            std = " ".join(f"{row[f'{m}_std']:.4f}" for m in MODALITIES if not math.isnan(row[f"{m}_std"]))
            bar.set_postfix_str(
                f"loss {row['total']:.3f}, std {std}, {row['samples_per_second']:.0f} samples/s",
                refresh=False,
            )
            bar.update(step - bar.n)

        yield update


@contextlib.contextmanager
def _warnings_to_stderr(*, quiet: bool) -> Iterator[None]:
    """Print the package's warnings as lines of this command."""
    from tqdm import tqdm

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(f"{PROG}: warning: {record.getMessage()}", file=sys.stderr)

    logger, handler = logging.getLogger("crisscross_zoo"), Lines(logging.ERROR if quiet else logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


if __name__ == "__main__":
    sys.exit(main())
