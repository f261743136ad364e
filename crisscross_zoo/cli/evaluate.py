"""``crisscross-evaluate``: the paper's protocols on labelled data, retrieval in any folder, and a table of results."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crisscross_zoo.cli.common import (
    EXIT_DONE,
    EXIT_FAILED,
    ArgumentParser,
    add_version,
    count,
    print_json,
    run,
)
from crisscross_zoo.cli.config_options import add_config_options, config_overrides
from crisscross_zoo.cli.downloads import quiet_downloads
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate.protocols import (
    PROTOCOLS,
    TABLE,
    ProtocolConfig,
    changed_settings,
    make_protocol,
)
from crisscross_zoo.settings import PRECISIONS

if TYPE_CHECKING:
    from crisscross_zoo.evaluate.gallery import Query

PROG = "crisscross-evaluate"

_ABOUT = "Evaluate encoders with the paper's protocols, and tabulate the results."
_EPILOG = """\
crisscross-evaluate linear esc50 --root ESC-50/ --weights audioset
crisscross-evaluate finetune ucf101 --root UCF101/ --setup 32-frame --device cuda --precision bf16 --workers 8
crisscross-evaluate linear videos/ --weights demo       any folder: CLASS/FILE, or train/CLASS and test/CLASS
crisscross-evaluate retrieval videos/ --weights demo --query some.mp4       no labels needed
crisscross-evaluate report results/*
exit codes: 0 done, 1 failed, or done with some files missing or failed, 2 bad usage, 130 interrupted"""

_ABOUT_PROTOCOL = {
    "linear": "linear probe: an SVM or a linear layer on features of the frozen encoder (section E.1)",
    "fusion": "an SVM on the features of both modalities (section E.1)",
    "finetune": "finetune the video encoder with a new linear layer (section E.2)",
    "retrieval": "nearest neighbours: R@1, R@5 and R@20, or the neighbours of a file of yours (section E.3)",
}
_NAMED = ("protocol", "dataset", "setup", "source", "modality", "svm", "layer", "finetune", "retrieval")
_GALLERY_QUERIES = 20

_LOG_SECONDS = 30
"""Seconds between two lines of a stage, where stderr is a file; its beginning and end also have one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_main, argv, prog=PROG)


def _main(argv: Sequence[str] | None) -> int:
    options = build_parser().parse_args(argv)
    command = cast(Callable[[argparse.Namespace], int], options.command)
    with quiet_downloads(options.quiet):
        return command(options)


def build_parser() -> ArgumentParser:
    """Return the parser of ``crisscross-evaluate``."""
    parser = ArgumentParser(prog=PROG, description=_ABOUT, epilog=_EPILOG)
    add_version(parser)
    add = parser.add_commands()
    for protocol in PROTOCOLS:
        sub = add(protocol, _evaluate, _ABOUT_PROTOCOL[protocol], "print the result as JSON")
        sub.set_defaults(protocol=protocol)
        _add_protocol_options(sub, protocol)
    sub = add(
        "report", _report, "tabulate results beside the paper's numbers", "print the table's rows as JSON"
    )
    sub.add_argument("runs", metavar="RUN", nargs="+", help="folders of results, or folders of such folders")
    sub.add_argument(
        "--out",
        metavar="FILE",
        action="append",
        default=[],
        help="a .md, .csv or .html file to write; may be given several times",
    )
    return parser


def _add_protocol_options(sub: ArgumentParser, protocol: str) -> None:
    rows = [c for c in TABLE if c.protocol == protocol]
    names = [n for n in dict.fromkeys(c.dataset for c in rows) if n != "folder"]
    sub.add_argument("dataset", metavar="DATASET", help=f"{', '.join(names)}, or a folder of your own")
    sub.add_argument("--root", metavar="DIR", help="the data set's folder")
    sub.add_argument(
        "--split-root", metavar="DIR", help="folder of the data set's lists of splits, if not in --root"
    )
    setups = "; ".join(
        f"{n}: {', '.join(c.setup for c in rows if c.dataset == n)}" for n in [*names, "folder"]
    )
    sub.add_argument("--setup", metavar="NAME", help=f"setup of the paper (default: the first) - {setups}")
    sub.add_argument(
        "--weights",
        default="audioset",
        help="name, Hub id, checkpoint, random:SEED, or the folder of a pretraining run (default: audioset)",
    )
    sub.add_argument(
        "--fold", default="all", metavar="N|all", help="fold of the data set to evaluate (default: all)"
    )
    sub.add_argument(
        "--out", metavar="DIR", help="folder of the result (default: results/PROTOCOL-DATASET-...)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace another evaluation's result in --out")
    sub.add_argument(
        "--cache",
        metavar="DIR",
        help="folder where features are kept for later runs"
        " (default: $CRISSCROSS_CACHE, else ~/.cache/crisscross_zoo/features)",
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    sub.add_argument(
        "--precision", default="fp32", choices=PRECISIONS, help="precision of the network (default: fp32)"
    )
    sub.add_argument(
        "--batch-size", type=count, metavar="N", help="clips per batch in extraction (default: by device)"
    )
    sub.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of decoding workers; 0 decodes in the main process (default: by device and cores)",
    )
    sub.add_argument("--settings", action="store_true", help="print the settings as JSON and exit")
    if protocol == "retrieval":
        sub.add_argument(
            "--query",
            metavar="FILE",
            action="append",
            default=[],
            help="find the nearest neighbours of this file in DATASET, a folder, which needs no labels;"
            " may be given several times",
        )
        sub.add_argument(
            "--top",
            type=count,
            metavar="N",
            default=5,
            help="number of neighbours to print per --query (default: 5)",
        )
        sub.add_argument(
            "--gallery", metavar="DIR", help="folder for a web page of queries and their neighbours"
        )
        sub.add_argument(
            "--gallery-queries",
            type=count,
            default=_GALLERY_QUERIES,
            metavar="N",
            help=f"number of queries in the gallery, drawn by --seed (default: {_GALLERY_QUERIES})",
        )
        sub.add_argument(
            "--heads",
            metavar="RUN",
            help="folder of a pretraining run, whose heads allow retrieval between video and audio"
            " (default: --weights, if that is such a folder)",
        )
    sub.epilog = "The settings default to the values of the paper's setup; --settings prints them."
    add_config_options(sub, _all_sections(rows), skip=_NAMED, defaults=False)


def _all_sections(rows: Sequence[ProtocolConfig]) -> ProtocolConfig:
    """Return a config with every section that some row has, for the names and types of the options."""
    sections = {}
    for section in ("svm", "layer", "finetune", "retrieval"):
        sections[section] = next((getattr(c, section) for c in rows if getattr(c, section) is not None), None)
    return ProtocolConfig(
        protocol=rows[0].protocol,
        dataset="",
        setup="",
        modality="video",
        source="",
        clips=rows[0].clips,
        **sections,  # type: ignore[arg-type]
    )


def _config(options: argparse.Namespace, dataset: str) -> ProtocolConfig:
    rows = [c for c in TABLE if c.protocol == options.protocol]
    given = config_overrides(options, _all_sections(rows), skip=_NAMED)
    released = given.pop("released", False)
    return make_protocol(
        options.protocol,
        dataset,
        setup=options.setup,
        pretrained_on=_pretrained_on(options.weights),
        released=released,
        overrides=given,
    )


def _pretrained_on(weights: str) -> str | None:
    from crisscross_zoo.weights.manifest import list_weights

    return next((e.pretrained_on.dataset for e in list_weights("video") if e.name == weights), None)


def _evaluate(options: argparse.Namespace) -> int:
    dataset, root = _dataset(options)
    config = _config(options, dataset)
    if options.settings:
        print_json(config.to_dict())
        return EXIT_DONE
    from crisscross_zoo.evaluate import Compute
    from crisscross_zoo.evaluate.run import check_packages

    check_packages()
    compute = Compute(
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
        **({"cache": Path(options.cache)} if options.cache else {}),
    )
    if getattr(options, "query", None):
        return _search(options, config, root, compute)
    from crisscross_zoo.evaluate import evaluate, read_dataset
    from crisscross_zoo.evaluate.datasets import NO_CLASSES
    from crisscross_zoo.evaluate.results import recall_lines, result_lines

    try:
        data = read_dataset(
            dataset,
            root,
            **({} if options.split_root is None else {"split_root": options.split_root}),
            seed=config.seed,
            missing=lambda line: _print_line(line, quiet=options.quiet),
        )
    except ConfigError as error:
        if options.protocol != "retrieval" or NO_CLASSES not in error.reason:
            raise
        remedy = f"{error.remedy}, or search it without classes: --query FILE"
        raise ConfigError(error.reason, remedy=remedy, path=error.path) from None
    out = Path(options.out or Path("results") / _slug(config, root, options.weights, options.fold))
    galleries: list[Mapping[str, Sequence[Query]]] = []
    with _stages(quiet=options.quiet) as on_progress:
        result = evaluate(
            config,
            data,
            options.weights,
            out=out,
            folds=_folds(options.fold, list(data.folds)),
            compute=compute,
            heads=_heads(options, config),
            overwrite=options.overwrite,
            on_message=lambda line: _print_line(line, quiet=options.quiet),
            on_progress=on_progress,
            on_queries=galleries.append,
        )
    for queries in galleries if getattr(options, "gallery", None) else ():
        _gallery(options, config, queries, recall_lines(result))
    if options.json:
        print_json(result)
    else:
        print("\n".join(result_lines(result)))
        if not options.quiet:
            print(f"{PROG}: the result is in {out}", file=sys.stderr)
    incomplete = result["absent"] or any(fold["failed"] for fold in result["folds"].values())
    return EXIT_FAILED if incomplete else EXIT_DONE


def _dataset(options: argparse.Namespace) -> tuple[str, str]:
    """Return the name and the folder of the data set; the name is "folder" if the user gave a path."""
    rows = [c.dataset for c in TABLE if c.protocol == options.protocol and c.dataset != "folder"]
    names = list(dict.fromkeys(rows))
    if options.dataset in names:
        if options.root is None and options.settings:
            return options.dataset, ""
        if options.root is None:
            raise ConfigError(
                f"{options.dataset} needs --root", remedy="pass the data set's folder: --root DIR"
            )
        return options.dataset, options.root
    if Path(options.dataset).is_dir():
        if options.root is not None:
            raise ConfigError("a folder and --root exclude each other", remedy="leave out --root")
        return "folder", options.dataset
    from crisscross_zoo.settings import suggest

    if options.dataset in {c.dataset for c in TABLE}:
        raise ConfigError(
            f"the paper has no {options.protocol} on {options.dataset}",
            remedy=f"{suggest(options.dataset, names)}, or name a folder of your own",
        )
    raise ConfigError(
        f"{options.dataset}: neither a data set nor a folder", remedy=suggest(options.dataset, names)
    )


def _folds(text: str, folds: list[int]) -> list[int] | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) not in folds:
        raise ConfigError(
            f"--fold {text}: there is no such fold", remedy=f"choose from all, {', '.join(map(str, folds))}"
        )
    return [int(text)]


def _slug(config: ProtocolConfig, root: str, weights: str, fold: str) -> str:
    name = Path(root).resolve().name if config.dataset == "folder" else config.dataset
    parts = [config.protocol, name, config.setup, Path(weights).name, *[f"fold{fold}"] * (fold != "all")]
    parts += ["released"] * config.released + ["select-test"] * (
        config.select == "test" and not config.released
    )
    return re.sub(r"[^\w.-]+", "_", "-".join(parts))


def _heads(options: argparse.Namespace, config: ProtocolConfig) -> Any:
    if config.retrieval is None:
        return None
    if config.modality != "both":
        if options.heads:
            raise ConfigError("--heads goes with both modalities", remedy="pass --setup both")
        return None
    from crisscross_zoo.checkpoints.training import FOLDER
    from crisscross_zoo.evaluate import load_heads

    if options.heads:
        return load_heads(options.heads)
    return load_heads(options.weights) if (Path(options.weights) / FOLDER).is_dir() else None


def _search(options: argparse.Namespace, config: ProtocolConfig, root: str, compute: Any) -> int:
    from crisscross_zoo.evaluate import search

    with _stages(quiet=options.quiet) as on_progress:
        queries, failed = search(
            config,
            root,
            options.query,
            options.weights,
            top=options.top,
            compute=compute,
            heads=_heads(options, config),
            on_message=lambda line: _print_line(line, quiet=options.quiet),
            on_progress=on_progress,
        )
    if options.json:
        print_json(
            {
                "failed": failed,
                "queries": [
                    {
                        "direction": direction,
                        "query": query.item.path,
                        "hits": [{"path": hit.item.path, "similarity": hit.similarity} for hit in query.hits],
                    }
                    for direction, found in queries.items()
                    for query in found
                ],
            }
        )
    else:
        for direction, found in queries.items():
            for query in found:
                print(f"{query.item.path} ({direction})")
                for rank, hit in enumerate(query.hits, 1):
                    print(f"{rank:4}  {hit.similarity:6.3f}  {hit.item.path}")
    if options.gallery:
        _gallery(options, config, queries, {})
    return EXIT_FAILED if failed else EXIT_DONE


def _gallery(
    options: argparse.Namespace,
    config: ProtocolConfig,
    queries: Mapping[str, Sequence[Query]],
    recall: Mapping[str, str],
) -> None:
    """Write the page of some of the queries; ``recall`` has lines of R@k, by their heading on the page."""
    import random

    from crisscross_zoo.evaluate import write_gallery

    drawn = {}
    for direction, found in queries.items():
        indices = random.Random(config.seed).sample(  # noqa: S311
            range(len(found)), min(options.gallery_queries, len(found))
        )
        drawn[direction] = [found[index] for index in sorted(indices)]
    facts = {
        "data": options.dataset,
        "weights": options.weights,
        "settings": _settings_line(config),
        "queries shown": f"{len(next(iter(drawn.values())))} of {len(next(iter(queries.values())))}",
        **recall,
    }
    with _stages(quiet=options.quiet) as on_progress:
        notes = write_gallery(
            Path(options.gallery),
            drawn,
            title=f"Retrieval in {Path(options.dataset).name}",
            facts=facts,
            on_progress=lambda done, total: on_progress("gallery: files", done, total),
        )
    for note in notes:
        _print_line(note, quiet=options.quiet)
    _print_line(f"the gallery is {Path(options.gallery) / 'index.html'}", quiet=options.quiet)


def _settings_line(config: ProtocolConfig) -> str:
    """Return the setup, with the source of its settings, or with those that the user changed."""
    changed = ", ".join(f"{name} {value}" for name, value in changed_settings(config).items())
    return f"{config.setup}, with {changed}" if changed else f"{config.setup}, {config.source}"


def _report(options: argparse.Namespace) -> int:
    from crisscross_zoo.evaluate.report import find_results, report_rows, to_markdown, write_report

    rows = report_rows(find_results(options.runs))
    for path in options.out:
        write_report(rows, path)
    if options.json:
        print_json(rows)
    else:
        print(to_markdown(rows))
    return EXIT_DONE


def _print_line(line: str, *, quiet: bool) -> None:
    if not quiet:
        from tqdm import tqdm

        tqdm.write(f"{PROG}: {line}", file=sys.stderr)


@contextlib.contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on stderr for each stage; yield its callback, ``(stage, done, total)``; total 0: unknown."""
    from tqdm import tqdm

    log = not quiet and not sys.stderr.isatty()  # a file: a line now and then instead of bars
    quiet = quiet or log
    with contextlib.ExitStack() as stack:
        bars: dict[str, Any] = {}
        logged = 0.0  # time of the last line

        def update(stage: str, done: int, total: int) -> None:
            nonlocal logged
            if log and (stage not in bars or done == total or time.monotonic() - logged > _LOG_SECONDS):
                count = f": {done} of {total}" if total else f": {done}" if done else ""
                print(f"{PROG}: {stage}{count}", file=sys.stderr, flush=True)
                logged = time.monotonic()
            if stage not in bars:
                for bar in bars.values():
                    bar.close()
                bars.clear()
                bars[stage] = stack.enter_context(
                    tqdm(desc=stage, total=total or None, disable=quiet, file=sys.stderr, dynamic_ncols=True)
                )
            bar = bars[stage]
            bar.total = total or None
            bar.update(done - bar.n)

        yield update


if __name__ == "__main__":
    sys.exit(main())
