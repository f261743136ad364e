"""Features of files, folders, patterns and URLs: :func:`extract_files`, which ``crisscross-extract`` calls."""

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
from crisscross_zoo.extract.lists import PARTS_NAME, Lists
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

_REMARKS = 3
"""For how many files the same note is told one by one."""

_PROGRESS_SECONDS = 0.5

_SUFFIXES_NAMED = 5
"""How many suffixes of skipped files are named, the most frequent first."""

_OWN_SUFFIXES = frozenset({".npz", ".npy", ".json", ".jsonl", ".csv"})
"""Of what extraction writes, which may lie in a folder that it reads."""

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
    """Extract the features of many files; what is there already is skipped, a bad file fails alone.

    >>> extract_files(["videos/"], "feats/", modality="both", on_event=print)    # doctest: +SKIP

    Args:
        inputs: Media files, folders (recursive), glob patterns, or URLs of these.
        out: A folder, or its URL: one file an input in the same tree, ``index.csv`` and ``failed.jsonl``. Or a file
            for the one input: .npy, .npz or .safetensors.
        weights: As for :func:`crisscross_zoo.load_encoder`, or one by modality: ``{"video": ..., "audio": ...}``.
        modality: ``"video"``, ``"audio"`` or ``"both"``.
        list_file: A file with one more input a line; lines that begin with # do not count.
        format: Of the files in a folder. Default: "npz".
        root: Mirror the tree from here. Default: the inputs' common folder.
        shard: ``(i, n)``: take every n-th file beginning with number i, from 0; n such processes may run at once on
            one folder. Default: all files, or the shard of a process that torchrun or srun started.
        engine: ``"ray"``: run on a cluster whose nodes share the inputs and ``out``. Default: in this process.
        address: With ``engine="ray"``: the cluster's, or "auto". Default: $RAY_ADDRESS, or one of this machine alone.
        on_error: At a bad file, "skip" it, or "stop".
        overwrite: Redo what is there; replace files that are something else.
        on_event: Called with each :data:`crisscross_zoo.extract.report.Event`; ``print`` shows them.
        **options: See :class:`crisscross_zoo.extract.ExtractOptions`.

    Returns:
        What became of each input; also after an interrupt (Ctrl-C), which ends the run.

    Raises:
        ConfigError: a value that is not allowed, values that exclude each other, or no inputs.
        WeightsError: the weights cannot be had.
        OutputError: ``out`` cannot be written, or its lists are something else's.
        StorageError: the disk is full, over quota or read-only; the same call again goes on.
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
    own = started_shard() if shard is None else numbered_shard(*shard)
    single = _is_single_output(target, format)
    _check_engine(engine, address, own, single=single)
    _check_single(target, modality, own, single=single)
    skipped: dict[str, Counter[str]] = {}
    suffixes = VIDEO_SUFFIXES if modality == "video" else MEDIA_SUFFIXES
    found = find_media(texts, list_file=list_file, suffixes=suffixes, on_skipped=skipped.__setitem__)
    if single:
        folder, outputs = _one_output(target, found)
    else:
        start = None if root is None else remote.without_file_scheme(os.fspath(root))
        folder, outputs = _outputs(target, found, texts, start, format or "npz", modality)
    emit = on_event or (lambda _: None)
    if own.index == 0:
        for place, counts in skipped.items():
            if text := _describe_skipped(counts, modality):
                emit(FileNote(place, text))
    if own.count > 1:
        outputs = {path: outputs[path] for path in own.of(found)}
        part = f"{len(outputs)} of {counted(len(found), 'file')}"
        emit(Message(f"shard {own.index} of {own.count} ({own.origin}): {part}"))
    plan = _Plan(target, folder, outputs, own, weights, given, engine, address, on_error, overwrite, single)
    return _Run(plan, emit).run()


@dataclass(frozen=True)
class _Plan:
    """What a run does."""

    out: str
    folder: Folder
    outputs: Mapping[str, str]  # input to name in the folder
    shard: Shard
    weights: Any
    options: ExtractOptions
    engine: Engine | None
    address: str | None
    on_error: OnError
    overwrite: bool
    single: bool


class _Run:
    """One run over its inputs."""

    def __init__(self, plan: _Plan, emit: Callable[[Event], object]) -> None:
        self.plan = plan
        self.emit = emit
        self._results: dict[str, FileResult] = {}
        self._failed: dict[str, CrissCrossError] = {}
        self._notes: Counter[str] = Counter()
        self._lists_in = plan.folder.place(FAILED_NAME)
        self._started = time.monotonic()
        self._told = float("-inf")
        self._clips = 0, 0, 0  # done, known, and the files that these are of

    def run(self) -> Summary:
        plan, shard = self.plan, self.plan.shard
        part = shard.name() if shard.count > 1 else None
        lists = None if plan.single else Lists(plan.folder, part)
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
        except BaseException:  # a caller's on_event, say: what is written is listed all the same
            if lists is not None and part is None and (self._results or self._failed):
                with contextlib.suppress(OutputError):
                    self._write_lists(lists)
            raise
        whole = not (interrupted or stopped or full)
        if lists is not None and (whole or part is None):  # others take a part that is there for whole
            with contextlib.suppress(*[] if full is None else [OutputError]):  # they may still fit
                self._write_lists(lists)
        for text, number in self._notes.items():
            if number > _REMARKS and full is None:
                self.emit(Message(f"note: the same of {number - _REMARKS} more: {text}"))
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
        if plan.single:  # torch and weights need not be loaded to say so
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
            reason = "other settings, weights or versions of the input"
            self.emit(
                Message(f"note: {counted(replaced, 'output')} of {reason}: extracted again and replaced")
            )
        self._progress(0, 0, 0)
        for given, result in extractor.stream(todo, on_progress=self._progress):
            path = os.fspath(given)
            yield save(path, plan.folder, plan.outputs[path], result)
        self._tell_progress()

    def _on_ray(self) -> Iterator[FileResult]:
        from crisscross_zoo.extract.ray import extract_on_ray

        plan, stdout = self.plan, sys.stdout
        # What does not fit is known, and weights are downloaded, before any worker starts.
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
        # Ray prints pages on each loss to stdout, which is for results. They are in its logs, and told in one line.
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            try:
                while True:
                    with contextlib.redirect_stdout(nowhere):
                        result = next(results, None)
                    if result is None:
                        self._tell_progress()
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
        if (now := time.monotonic()) - self._told >= _PROGRESS_SECONDS:
            self._told = now
            self._tell_progress()

    def _tell_progress(self) -> None:
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
        output = self.plan.folder.place(result.output)
        if result.skipped:
            self.emit(FileSkipped(path, output, metadata["shapes"]))
            return
        self.emit(FileDone(path, output, metadata["shapes"]))
        for modality in metadata["missing"]:
            found = "audio" if modality == "video" else "video"
            self._note(path, f"has no {modality}; its {found} features are written")
        for modality in metadata["padded"]:
            filled = "its frames are repeated" if modality == "video" else "silence is added"
            self._note(path, f"the {modality} is shorter than one clip; {filled}")
        for note in metadata["notes"]:
            self._note(path, note)
        for warning in metadata["warnings"]:
            self.emit(FileWarning(path, warning))

    def _note(self, path: str, text: str) -> None:
        """Tell what may be as wanted, for some files; at the end it is said for how many more."""
        self._notes[text] += 1
        if self._notes[text] <= _REMARKS:
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
                parts = [shard.name(k) for k in range(shard.count)]
                if not Lists.merge(plan.folder, parts, by=shard.name()):
                    self._lists_in = plan.folder.place(f"{PARTS_NAME}/{shard.name()}/{FAILED_NAME}")
                    self.emit(Message("the lists of all shards are written when the last one is done"))
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror})", remedy="check the folder", path=plan.folder.place()
            ) from None

    def _summary(self, *, interrupted: bool, stopped: bool) -> Summary:
        plan = self.plan
        files = []
        for path in plan.outputs:
            result = self._results.get(path)
            if result is not None and result.summary is not None:
                place = plan.folder.place(result.output)
                files.append(FileSummary(path, place, result.summary, result.span, result.skipped))
        return Summary(
            out=plan.out,
            files=tuple(files),
            failed=self._failed,
            inputs=len(plan.outputs),
            modality=plan.options.modality,
            interrupted=interrupted,
            stopped=stopped,
            seconds=time.monotonic() - self._started,
            failed_list=None if plan.single else self._lists_in,
            shard=plan.shard,
        )


def _describe_skipped(suffixes: Counter[str], modality: str) -> str:
    """Return how many files of a folder are skipped, and why, by the number of each suffix."""
    audio = sum(number for suffix, number in suffixes.items() if suffix in MEDIA_SUFFIXES)
    by_number = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    others = {s or "no suffix": n for s, n in by_number if s not in MEDIA_SUFFIXES | _OWN_SUFFIXES}
    parts = []
    if audio:
        parts.append(f"{counted(audio, 'audio file')} skipped (--modality {modality})")
    if others:
        names = ", ".join([*others][:_SUFFIXES_NAMED]) + ", ..." * (len(others) > _SUFFIXES_NAMED)
        parts.append(f"{counted(sum(others.values()), 'file')} skipped because of the suffix ({names})")
    return "; ".join(parts)


def _check_engine(engine: str | None, address: str | None, shard: Shard, *, single: bool) -> None:
    if engine is None:
        if address is not None:
            raise ConfigError("--address goes with --engine ray", remedy="add it, or leave the address out")
    elif single:
        raise ConfigError(f"--engine {engine} writes to a folder", remedy="name one: --out feats/")
    elif shard.count > 1:
        raise ConfigError(
            f"--engine {engine} distributes the files itself", remedy="start it once, without --shard"
        )


def _is_single_output(out: str, format: str | None) -> bool:  # noqa: A002
    """Return whether ``out`` is a file for one input, not a folder."""
    suffix = Path(out).suffix
    # os.path answers False where pathlib raises: names too long.
    if os.path.isdir(out) or out.endswith(("/", "\\")):
        return False
    if suffix.lower() in FORMATS and suffix not in FORMATS:
        raise ConfigError(f"--out: {suffix} is not written", remedy=f"write it as {suffix.lower()}")
    if suffix in FORMATS:
        if format is not None and f".{format}" != suffix:
            raise ConfigError(f"--format {format} and --out {out} differ", remedy="leave out --format")
        return True
    if suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(f"--out: {suffix} is not written", remedy=f"name {', '.join(FORMATS)} or a folder")
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
    """Return the folder of the file ``out``, and by the one input its name there."""
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
    """Return the output folder, and by input the names of the outputs in it."""
    folder = open_folder(out)
    _check_format(folder, form)
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ConfigError(f"--out {out} is a file, not a folder", remedy="name another")
    if form == "npy" and modality == "both":
        raise ConfigError("--format npy holds one modality", remedy="use npz or safetensors")
    # What does not exist says nothing about the tree: a mistyped name must not move every output.
    there = [p for p in paths if remote.exists(p)]
    folders = [p for p in map(remote.without_file_scheme, inputs) if is_folder(p)]
    start = Path(remote.absolute(root)) if root is not None else common_folder([*folders, *there] or paths)
    mirrored = mirror(there, start, folder, f".{form}")
    if folder.local is not None:
        _check_writable(folder.local)
    return folder, {p: mirrored.get(p, ".missing") for p in paths}  # never written: these inputs fail


def _check_format(folder: Folder, form: str) -> None:
    if folder.local is None and form == "npy":
        raise ConfigError(".npy and its .json are not written to a URL", remedy="use npz or safetensors")


def _check_writable(out: Path) -> None:
    """Say at once, not after the first file's work, that ``out`` cannot be written."""
    nearest = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not os.access(nearest, os.W_OK) or (nearest != out and not nearest.is_dir()):
        reason = "may not be written to" if nearest.is_dir() or nearest == out else "is a file, not a folder"
        raise OutputError(f"cannot be written: {nearest} {reason}", remedy="choose another --out", path=out)
