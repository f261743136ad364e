"""The command ``crisscross-evaluate``: the paper's protocols on labelled data, retrieval in any folder, one table."""

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

_ABOUT = (
    "Evaluate encoders as the paper does: linear, fusion, finetune, retrieval; and make one table of it all."
)
_EPILOG = """\
crisscross-evaluate linear esc50 --root ESC-50/ --weights audioset
crisscross-evaluate finetune ucf101 --root UCF101/ --setup 32-frame --device cuda --precision bf16 --workers 8
crisscross-evaluate linear videos/ --weights demo       any folder: CLASS/FILE, or train/CLASS and test/CLASS
crisscross-evaluate retrieval videos/ --weights demo --query some.mp4       no labels needed
crisscross-evaluate report results/*
exit codes: 0 done, 1 failed, or done without some of the files, 2 bad usage, 130 interrupted"""

_ABOUT_PROTOCOL = {
    "linear": "an SVM, or a linear layer, on features of the frozen encoder (section E.1)",
    "fusion": "an SVM on the features of both modalities (section E.1)",
    "finetune": "all of the video encoder, trained with a new layer (section E.2)",
    "retrieval": "nearest neighbours: R@1, 5, 20, or the neighbours of a file of yours (section E.3)",
}
_NAMED = ("protocol", "dataset", "setup", "source", "modality", "svm", "layer", "finetune", "retrieval")
_GALLERY_QUERIES = 20

_LOG_SECONDS = 30
"""Where stderr is a file, a stage has a line so often, besides those of its beginning and end."""


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
        sub = add(protocol, _evaluate, _ABOUT_PROTOCOL[protocol], "print the result")
        sub.set_defaults(protocol=protocol)
        _add_protocol_options(sub, protocol)
    sub = add(
        "report", _report, "one table of results, with the paper's numbers beside them", "print the rows"
    )
    sub.add_argument("runs", metavar="RUN", nargs="+", help="folders of results, or folders of such folders")
    sub.add_argument(
        "--out", metavar="FILE", action="append", default=[], help="a .md, .csv or .html file to write"
    )
    return parser


def _add_protocol_options(sub: ArgumentParser, protocol: str) -> None:
    rows = [c for c in TABLE if c.protocol == protocol]
    names = [n for n in dict.fromkeys(c.dataset for c in rows) if n != "folder"]
    sub.add_argument("dataset", metavar="DATASET", help=f"{', '.join(names)}, or a folder of your own")
    sub.add_argument("--root", metavar="DIR", help="the data set's folder")
    sub.add_argument("--split-root", metavar="DIR", help="where its lists of splits are, if not in --root")
    setups = "; ".join(
        f"{n}: {', '.join(c.setup for c in rows if c.dataset == n)}" for n in [*names, "folder"]
    )
    sub.add_argument(
        "--setup", metavar="NAME", help=f"which of the paper's setups (default: the first) - {setups}"
    )
    sub.add_argument(
        "--weights",
        default="audioset",
        help="a name, Hub id, checkpoint, random:SEED, or the folder of a pretraining run (default: audioset)",
    )
    sub.add_argument("--fold", default="all", metavar="N|all", help="which fold (default: all)")
    sub.add_argument(
        "--out", metavar="DIR", help="the result's folder (default: results/PROTOCOL-DATASET-...)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace another evaluation's result in --out")
    sub.add_argument(
        "--cache",
        metavar="DIR",
        help="where features are kept between runs (default: $CRISSCROSS_CACHE, else ~/.cache/crisscross_zoo/features)",
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    sub.add_argument("--precision", default="fp32", choices=PRECISIONS, help="(default: fp32)")
    sub.add_argument("--batch-size", type=count, metavar="N", help="clips a batch in extraction")
    sub.add_argument("--workers", type=int, metavar="N", help="processes that decode; 0: none but this one")
    sub.add_argument("--settings", action="store_true", help="print the settings as JSON and stop")
    if protocol == "retrieval":
        sub.add_argument(
            "--query",
            metavar="FILE",
            action="append",
            default=[],
            help="search DATASET, a folder, for what is like this file; no labels are needed",
        )
        sub.add_argument("--top", type=count, default=5, help="neighbours shown of a --query (default: 5)")
        sub.add_argument("--gallery", metavar="DIR", help="write a page of queries and their neighbours")
        sub.add_argument(
            "--gallery-queries",
            type=count,
            default=_GALLERY_QUERIES,
            metavar="N",
            help=f"queries on it, drawn by --seed (default: {_GALLERY_QUERIES})",
        )
        sub.add_argument(
            "--heads",
            metavar="RUN",
            help="a pretraining run, whose heads give video-to-audio and back (default: --weights, if it is one)",
        )
    sub.epilog = "Settings below have the values of the paper's setup unless given; --settings prints them."
    add_config_options(sub, _all_parts(rows), skip=_NAMED, defaults=False)


def _all_parts(rows: Sequence[ProtocolConfig]) -> ProtocolConfig:
    """Return a config with every part that some row has: for the names and types of the options."""
    parts = {}
    for part in ("svm", "layer", "finetune", "retrieval"):
        parts[part] = next((getattr(c, part) for c in rows if getattr(c, part) is not None), None)
    return ProtocolConfig(
        protocol=rows[0].protocol,
        dataset="",
        setup="",
        modality="video",
        source="",
        clips=rows[0].clips,
        **parts,  # type: ignore[arg-type]
    )


def _config(options: argparse.Namespace, dataset: str) -> ProtocolConfig:
    rows = [c for c in TABLE if c.protocol == options.protocol]
    given = config_overrides(options, _all_parts(rows), skip=_NAMED)
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
            missing=lambda line: _say(line, quiet=options.quiet),
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
            on_message=lambda line: _say(line, quiet=options.quiet),
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
            print(f"{PROG}: all of it is in {out}", file=sys.stderr)
    lost = result["absent"] or any(fold["failed"] for fold in result["folds"].values())
    return EXIT_FAILED if lost else EXIT_DONE


def _dataset(options: argparse.Namespace) -> tuple[str, str]:
    """Return the data set's name and folder: of a known name, or of a path."""
    names = [c.dataset for c in TABLE if c.protocol == options.protocol and c.dataset != "folder"]
    known = list(dict.fromkeys(names))
    if options.dataset in known:
        if options.root is None and options.settings:
            return options.dataset, ""
        if options.root is None:
            raise ConfigError(f"{options.dataset} has no --root", remedy="pass its folder: --root DIR")
        return options.dataset, options.root
    if Path(options.dataset).is_dir():
        if options.root is not None:
            raise ConfigError("a folder and --root exclude each other", remedy="leave out --root")
        return "folder", options.dataset
    from crisscross_zoo.settings import suggest

    every = {c.dataset for c in TABLE}
    if options.dataset in every:
        raise ConfigError(
            f"the paper has no {options.protocol} on {options.dataset}",
            remedy=f"{suggest(options.dataset, known)}, or name a folder of your own",
        )
    raise ConfigError(
        f"{options.dataset}: neither a data set nor a folder", remedy=suggest(options.dataset, known)
    )


def _folds(text: str, known: list[int]) -> list[int] | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) not in known:
        raise ConfigError(
            f"--fold {text}: there is no such fold", remedy=f"choose from all, {', '.join(map(str, known))}"
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
            on_message=lambda line: _say(line, quiet=options.quiet),
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
    """Write the page of some queries; ``recall`` is what is known of R@k, by what to call it."""
    import random

    from crisscross_zoo.evaluate import write_gallery

    drawn = {}
    for direction, found in queries.items():
        places = random.Random(config.seed).sample(  # noqa: S311
            range(len(found)), min(options.gallery_queries, len(found))
        )
        drawn[direction] = [found[place] for place in sorted(places)]
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
        _say(note, quiet=options.quiet)
    _say(f"look at {Path(options.gallery) / 'index.html'}", quiet=options.quiet)


def _settings_line(config: ProtocolConfig) -> str:
    """Return the setup and where its settings come from, or which of them were changed."""
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


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        from tqdm import tqdm

        tqdm.write(f"{PROG}: {line}", file=sys.stderr)


@contextlib.contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each stage, told ``(what, done, total)``; a total of 0 is not known."""
    from tqdm import tqdm

    log = not quiet and not sys.stderr.isatty()  # a file: a line now and then in place of bars
    quiet = quiet or log
    with contextlib.ExitStack() as stack:
        bars: dict[str, Any] = {}
        logged = 0.0  # when the last line was printed

        def tell(what: str, done: int, total: int) -> None:
            nonlocal logged
            if log and (what not in bars or done == total or time.monotonic() - logged > _LOG_SECONDS):
                count = f": {done} of {total}" if total else f": {done}" if done else ""
                print(f"{PROG}: {what}{count}", file=sys.stderr, flush=True)
                logged = time.monotonic()
            if what not in bars:
                for bar in bars.values():
                    bar.close()
                bars.clear()
                bars[what] = stack.enter_context(
                    tqdm(desc=what, total=total or None, disable=quiet, file=sys.stderr, dynamic_ncols=True)
                )
            bar = bars[what]
            bar.total = total or None
            bar.update(done - bar.n)

        yield tell


if __name__ == "__main__":
    sys.exit(main())
