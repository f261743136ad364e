"""Extraction of files, folders, patterns and URLs: :func:`extract_files`, which ``crisscross-extract`` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from crisscross_zoo.errors import ConfigError, CrissCrossError, MediaNotFoundError, OutputError, StorageError
from crisscross_zoo.extract.lists import FRAGMENTS_NAME, Lists
from crisscross_zoo.extract.options import ExtractKeywords, ExtractOptions, Modalities
from crisscross_zoo.extract.outputs import FileResult, known_result, mirror, save
from crisscross_zoo.extract.report import (
    Event,
    FileDone,
    FileFailed,
    FileNote,
    FileSkipped,
    FileSummary,
    FileWarning,
    Message,
    Progress,
    Summary,
)
from crisscross_zoo.extract.shard import Shard, numbered_shard, started_shard
from crisscross_zoo.features import FORMATS, Format, check_name
from crisscross_zoo.files import remote
from crisscross_zoo.files.failures import FAILED_NAME, failure_row
from crisscross_zoo.files.find import MEDIA_SUFFIXES, VIDEO_SUFFIXES, common_folder, find_media, is_folder
from crisscross_zoo.files.store import Folder, open_file, open_folder
from crisscross_zoo.settings import StrPath, check, check_choice, check_path
from crisscross_zoo.text import counted

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor
    from crisscross_zoo.weights.loaded import Weights

Engine = Literal["ray"]
OnError = Literal["skip", "stop"]

_SAME_NOTES = 3
"""Number of files for which the same note is reported one by one; a message at the end counts the rest."""

_PROGRESS_SECONDS = 0.5

_SUFFIXES_NAMED = 5
"""Number of suffixes of skipped files that a note names, the most frequent first."""

_OWN_SUFFIXES = frozenset({".npz", ".npy", ".json", ".jsonl", ".csv"})
"""Suffixes of the files that extraction writes, possibly into a folder that it reads."""

_OTHER_FORMATS = (".pt", ".pth", ".pkl", ".h5", ".hdf5", ".csv", ".json", ".txt", ".parquet", ".mat")


def extract_files(
    inputs: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    weights: Weights | Mapping[str, Weights] = "audioset",
    modality: Modalities = "video",
    list_file: str | None = None,
    format: Format | None = None,  # noqa: A002 - as the command calls it
    root: StrPath | None = None,
    shard: tuple[int, int] | None = None,
    engine: Engine | None = None,
    address: str | None = None,
    on_error: OnError = "skip",
    overwrite: bool = False,
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[ExtractKeywords],
) -> Summary:
    """Extract the features of many files; finished outputs are skipped, a bad file fails alone.

    >>> extract_files(["videos/"], "feats/", modality="both", on_event=print)    # doctest: +SKIP

    Args:
        inputs: Media files, folders (recursive), glob patterns, or URLs of these.
        out: A folder, or its URL: one file per input in the same tree, ``index.csv`` and ``failed.jsonl``. Or a file
            for a single input: .npy, .npz or .safetensors.
        weights: As for :func:`crisscross_zoo.load_encoder`, or one by modality: ``{"video": ..., "audio": ...}``.
        modality: ``"video"``, ``"audio"`` or ``"both"``.
        list_file: A file with more inputs, one per line; lines that begin with # are ignored.
        format: Format of the files in a folder. Default: "npz".
        root: Folder from which the tree is mirrored. Default: the inputs' common folder.
        shard: ``(i, n)``: take every n-th file, starting at number i, from 0. n such processes may write to one folder
            at once. Default: all files, or the shard of a process that torchrun or srun started.
        engine: ``"ray"``: run on a cluster whose nodes share the inputs and ``out``. Default: in this process.
        address: With ``engine="ray"``: the cluster's address, or "auto". Default: $RAY_ADDRESS, or a cluster on this
            machine alone.
        on_error: "skip" a bad file, or "stop" at it.
        overwrite: Extract again what is finished, and replace files that do not hold features of the same input.
        on_event: Called with each :data:`crisscross_zoo.extract.report.Event`; ``print`` shows them.
        **options: See :class:`crisscross_zoo.extract.ExtractOptions`.

    Returns:
        The outcome of the run; also after an interrupt (Ctrl-C), which ends it.

    Raises:
        ConfigError: a value that is not allowed, values that exclude each other, or no inputs.
        WeightsError: the weights cannot be loaded.
        OutputError: ``out`` cannot be written, or its ``index.csv`` or ``failed.jsonl`` is another program's.
        StorageError: the disk is full, over quota or read-only; repeat the call to resume.
        ClusterError: the cluster was lost, or cannot run the work.
    """
    given = ExtractOptions.of(modality, options)
    check("overwrite", overwrite, bool)
    if shard is not None:
        check("shard", shard, tuple[int, int])
    if format is not None:
        check_choice("format", format, get_args(Format))
    if engine is not None:
        check_choice("engine", engine, get_args(Engine))
    check_choice("on_error", on_error, get_args(OnError))
    check_path("out", out)
    if not os.fspath(out):
        raise ConfigError("--out is empty", remedy="name a file or a folder")
    target = remote.without_file_scheme(os.fspath(out))
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    for path in paths:
        check_path("an input", path)
    texts = [os.fspath(path) for path in paths]
    this_shard = started_shard() if shard is None else numbered_shard(*shard)
    single = _is_single_output(target, format)
    _check_engine(engine, address, this_shard, single=single)
    _check_single(target, modality, this_shard, single=single)
    skipped: dict[str, Counter[str]] = {}
    suffixes = VIDEO_SUFFIXES if modality == "video" else MEDIA_SUFFIXES
    found = find_media(texts, list_file=list_file, suffixes=suffixes, on_skipped=skipped.__setitem__)
    if single:
        folder, outputs = _one_output(target, found)
    else:
        start = None if root is None else remote.without_file_scheme(os.fspath(root))
        folder, outputs = _outputs(target, found, texts, start, format or "npz", modality)
    emit = on_event or (lambda _: None)
    if this_shard.index == 0:
        for searched, suffix_counts in skipped.items():
            if text := _describe_skipped(suffix_counts, modality):
                emit(FileNote(searched, text))
    if this_shard.count > 1:
        outputs = {path: outputs[path] for path in this_shard.of(found)}
        size = f"{len(outputs):,} of {counted(len(found), 'file')}"
        emit(Message(f"shard {this_shard.index} of {this_shard.count} ({this_shard.origin}): {size}"))
    plan = _Plan(
        target, folder, outputs, this_shard, weights, given, engine, address, on_error, overwrite, single
    )
    return _Run(plan, emit).run()


@dataclass(frozen=True)
class _Plan:
    """What a run has to do."""

    out: str
    folder: Folder
    outputs: Mapping[str, str]  # by input, the name of its output in the folder
    shard: Shard
    weights: Any
    options: ExtractOptions
    engine: Engine | None
    address: str | None
    on_error: OnError
    overwrite: bool
    single: bool


class _Run:
    """Runs a plan: extracts its inputs, reports events, and writes the lists."""

    def __init__(self, plan: _Plan, emit: Callable[[Event], object]) -> None:
        self.plan = plan
        self.emit = emit
        self._results: dict[str, FileResult] = {}
        self._failed: dict[str, CrissCrossError] = {}
        self._notes: Counter[str] = Counter()
        self._failed_list = plan.folder.locate(FAILED_NAME)
        self._started = time.monotonic()
        self._progress_time = float("-inf")  # of the last Progress event
        self._clips = 0, 0, 0  # clips done, clips of the opened files, opened files

    def run(self) -> Summary:
        plan, shard = self.plan, self.plan.shard
        fragment = shard.name() if shard.count > 1 else None
        lists = None if plan.single else Lists(plan.folder, fragment)
        interrupted = stopped = False
        full: StorageError | None = None
        try:
            for result in self._run_all():
                self._take(result)
                stopped = bool(self._failed) and plan.on_error == "stop"
                if stopped:
                    break
        except KeyboardInterrupt:
            interrupted = True
        except StorageError as error:
            full = error
        except BaseException:  # such as one of the caller's on_event: list what is written all the same
            if lists is not None and fragment is None and (self._results or self._failed):
                with contextlib.suppress(OutputError):
                    self._write_lists(lists)
            raise
        whole = not (interrupted or stopped or full)
        # Other shards take an existing fragment as complete. A full disk may still have room for the lists.
        if lists is not None and (whole or fragment is None):
            with contextlib.suppress(*[] if full is None else [OutputError]):
                self._write_lists(lists)
        for text, number in self._notes.items():
            if number > _SAME_NOTES and full is None:
                rest = counted(number - _SAME_NOTES, "more file")
                self.emit(Message(f"note: the same for {rest}: {text}"))
        summary = self._summary(interrupted=interrupted or full is not None, stopped=stopped)
        self.emit(summary)
        if full is not None:
            raise full
        return summary

    def _run_all(self) -> Iterator[FileResult]:
        plan = self.plan
        if plan.engine == "ray":
            yield from self._on_ray()
            return
        if plan.single:  # reported before torch and the weights are loaded
            ((path, name),) = plan.outputs.items()
            if not remote.exists(path):
                missing = MediaNotFoundError("no such file", remedy="check the path", path=path)
                yield FileResult(path, name, error=missing)
                return
        extractor = self._extractor(plan.shard.own_device(plan.options.device))
        if extractor.precision_is_slow:
            self.emit(
                Message("note: this processor has no bfloat16 instructions: bf16 is slower on it than fp32")
            )
        todo, replaced = [], 0
        for path, name in plan.outputs.items():
            known = known_result(path, plan.folder, name, extractor.identity, overwrite=plan.overwrite)
            if known is None:
                todo.append(path)
                replaced += not plan.overwrite and plan.folder.exists(name)
            else:
                yield known
        if replaced:
            reason = "with other settings, weights or versions of the input"
            self.emit(Message(f"note: {counted(replaced, 'output')} {reason}: extracted again and replaced"))
        self._progress(0, 0, 0)
        for given, result in extractor.stream(todo, on_progress=self._progress):
            path = os.fspath(given)
            yield save(path, plan.folder, plan.outputs[path], result)
        self._emit_progress()

    def _on_ray(self) -> Iterator[FileResult]:
        from crisscross_zoo.extract.ray import extract_on_ray

        plan, stdout = self.plan, sys.stdout
        # Options that do not fit raise, and weights are downloaded, before any worker starts.
        self._extractor("cpu")

        def on_message(text: str) -> None:
            with contextlib.redirect_stdout(stdout):
                self.emit(Message(text))

        results = extract_on_ray(
            plan.weights,
            plan.options,
            plan.outputs,
            plan.folder,
            address=plan.address,
            overwrite=plan.overwrite,
            on_message=on_message,
        )
        self._progress(0, 0, 0)
        # Ray prints pages about each loss to stdout, which is for results. They are in its logs; a message is one line.
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            try:
                while True:
                    with contextlib.redirect_stdout(nowhere):
                        result = next(results, None)
                    if result is None:
                        self._emit_progress()
                        return
                    yield result
                    self._progress(0, 0, 0)
            finally:
                with contextlib.redirect_stdout(nowhere):
                    results.close()

    def _extractor(self, device: Any) -> FeatureExtractor:
        from crisscross_zoo.extract.extractor import FeatureExtractor

        options = dataclasses.replace(self.plan.options, device=device)
        return FeatureExtractor(self.plan.weights, options.modality, **options.keywords())

    def _progress(self, clips: int, known: int, opened: int) -> None:
        self._clips = clips, known, opened
        if (now := time.monotonic()) - self._progress_time >= _PROGRESS_SECONDS:
            self._progress_time = now
            self._emit_progress()

    def _emit_progress(self) -> None:
        done = len(self._results) + len(self._failed)
        self.emit(Progress(done, len(self.plan.outputs), *self._clips))

    def _take(self, result: FileResult) -> None:
        path, metadata = result.path, result.summary
        if result.error is not None:
            self._failed[path] = result.error
            self.emit(FileFailed(path, result.error))
        if metadata is None:
            return
        self._results[path] = result
        output = self.plan.folder.locate(result.output)
        if result.skipped:
            self.emit(FileSkipped(path, output, metadata["shapes"]))
            return
        self.emit(FileDone(path, output, metadata["shapes"]))
        for modality in metadata["missing"]:
            other = "audio" if modality == "video" else "video"
            self._note(path, f"has no {modality}; its {other} features are written")
        for modality in metadata["padded"]:
            padding = "its frames are repeated" if modality == "video" else "silence is added"
            self._note(path, f"the {modality} is shorter than one clip; {padding}")
        for note in metadata["notes"]:
            self._note(path, note)
        for warning in metadata["warnings"]:
            self.emit(FileWarning(path, warning))

    def _note(self, path: str, text: str) -> None:
        """Report a note for the first few files; a message at the end counts the rest."""
        self._notes[text] += 1
        if self._notes[text] <= _SAME_NOTES:
            self.emit(FileNote(path, text))

    def _write_lists(self, lists: Lists) -> None:
        plan, shard = self.plan, self.plan.shard
        for path, result in self._results.items():
            assert result.summary is not None
            lists.add(path, result.output, result.summary)
        for path, error in self._failed.items():
            row = failure_row(path, error, modality=plan.options.modality)
            lists.add_failure(path, plan.outputs[path], row)
        try:
            lists.write()
            if shard.count > 1:
                fragments = [shard.name(k) for k in range(shard.count)]
                if not Lists.merge(plan.folder, fragments, by=shard.name()):
                    self._failed_list = plan.folder.locate(f"{FRAGMENTS_NAME}/{shard.name()}/{FAILED_NAME}")
                    self.emit(
                        Message("the last shard to finish writes index.csv and failed.jsonl for all shards")
                    )
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror})", remedy="check the folder", path=plan.folder.locate()
            ) from None

    def _summary(self, *, interrupted: bool, stopped: bool) -> Summary:
        plan = self.plan
        files = []
        for path in plan.outputs:
            result = self._results.get(path)
            if result is not None and result.summary is not None:
                output = plan.folder.locate(result.output)
                files.append(FileSummary(path, output, result.summary, result.span, result.skipped))
        return Summary(
            out=plan.out,
            files=tuple(files),
            failed=self._failed,
            inputs=len(plan.outputs),
            modality=plan.options.modality,
            interrupted=interrupted,
            stopped=stopped,
            seconds=time.monotonic() - self._started,
            failed_list=None if plan.single else self._failed_list,
            shard=plan.shard,
        )


def _describe_skipped(suffixes: Counter[str], modality: str) -> str:
    """Return how many files of a folder are skipped, and why; ``suffixes`` counts them by suffix."""
    audio = sum(number for suffix, number in suffixes.items() if suffix in MEDIA_SUFFIXES)
    by_number = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    others = {s or "no suffix": n for s, n in by_number if s not in MEDIA_SUFFIXES | _OWN_SUFFIXES}
    phrases = []
    if audio:
        phrases.append(f"{counted(audio, 'audio file')} skipped (modality={modality!r})")
    if others:
        names = ", ".join([*others][:_SUFFIXES_NAMED]) + ", ..." * (len(others) > _SUFFIXES_NAMED)
        phrases.append(f"{counted(sum(others.values()), 'file')} skipped because of the suffix ({names})")
    return "; ".join(phrases)


def _check_engine(engine: str | None, address: str | None, shard: Shard, *, single: bool) -> None:
    if engine is None:
        if address is not None:
            raise ConfigError(
                "--address goes with --engine ray", remedy="add --engine ray, or leave out --address"
            )
    elif single:
        raise ConfigError(f"--engine {engine} writes to a folder", remedy="name a folder: --out feats/")
    elif shard.count > 1:
        raise ConfigError(
            f"--engine {engine} distributes the files itself", remedy="start it once, without --shard"
        )


def _is_single_output(out: str, format: str | None) -> bool:  # noqa: A002
    """Return whether ``out`` is a file for one input, not a folder."""
    suffix = Path(out).suffix
    # os.path returns False where pathlib raises: for names that are too long.
    if os.path.isdir(out) or out.endswith(("/", "\\")):
        return False
    if suffix.lower() in FORMATS and suffix not in FORMATS:
        raise ConfigError(f"--out: {suffix} is not supported", remedy=f"write it as {suffix.lower()}")
    if suffix in FORMATS:
        if format is not None and f".{format}" != suffix:
            raise ConfigError(f"--format {format} and --out {out} differ", remedy="leave out --format")
        return True
    if suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(
            f"--out: {suffix} is not supported", remedy=f"use {', '.join(FORMATS)}, or name a folder"
        )
    return False


def _check_single(out: str, modality: str, shard: Shard, *, single: bool) -> None:
    if single and modality == "both" and out.endswith(".npy"):
        raise ConfigError("--out: .npy holds one modality", remedy="write .npz or .safetensors, or a folder")
    if single and shard.count > 1:
        raise ConfigError(
            f"--out {out} is one file, and {shard.count} processes shard the inputs ({shard.origin})",
            remedy="name a folder: --out feats/",
        )


def _one_output(out: str, paths: list[str]) -> tuple[Folder, dict[str, str]]:
    """Return the folder of the file ``out``, and the file's name in it by the one input."""
    if len(paths) > 1:
        raise ConfigError(
            f"--out {out} is for one input, there are {len(paths)}", remedy="name a folder: --out feats/"
        )
    folder, name = open_file(out)
    _check_format(folder, Path(name).suffix[1:])
    if folder.local is not None:
        check_name(out)
        _check_writable(Path(out))
    return folder, {paths[0]: name}


def _outputs(
    out: str, paths: list[str], inputs: list[str], root: str | None, form: str, modality: str
) -> tuple[Folder, dict[str, str]]:
    """Return the output folder, and the name of each input's output in it."""
    folder = open_folder(out)
    _check_format(folder, form)
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ConfigError(f"--out {out} is a file, not a folder", remedy="name a folder")
    if form == "npy" and modality == "both":
        raise ConfigError("--format npy holds one modality", remedy="use npz or safetensors")
    # Only existing inputs count for the common folder: a mistyped name must not move every output.
    existing = [p for p in paths if remote.exists(p)]
    folders = [p for p in map(remote.without_file_scheme, inputs) if is_folder(p)]
    start = Path(remote.absolute(root)) if root is not None else common_folder([*folders, *existing] or paths)
    mirrored = mirror(existing, start, folder, f".{form}")
    if folder.local is not None:
        _check_writable(folder.local)
    return folder, {p: mirrored.get(p, ".missing") for p in paths}  # never written: these inputs fail


def _check_format(folder: Folder, form: str) -> None:
    if folder.local is None and form == "npy":
        raise ConfigError(".npy and its .json are not written to a URL", remedy="use npz or safetensors")


def _check_writable(out: Path) -> None:
    """Raise an OutputError if ``out`` cannot be written, before any file is extracted."""
    nearest = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not os.access(nearest, os.W_OK) or (nearest != out and not nearest.is_dir()):
        reason = "may not be written to" if nearest.is_dir() or nearest == out else "is a file, not a folder"
        raise OutputError(f"cannot be written: {nearest} {reason}", remedy="choose another --out", path=out)
