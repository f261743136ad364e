"""Each row of the table of rules in docs/time.md has tests, named here."""

from __future__ import annotations

import re
from pathlib import Path

import combinations  # noqa: F401  registers them
import pytest
from numbered import COMBINATIONS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "time.md"

RULES: dict[str, str] = {
    "timestamps of frames and audio": "mkv-h264-late mp4-h264-audio-late test_late_video_keeps_its_distance",
    "multiples of the frame duration": "mkv-h264-29.97 test_frames_are_picked_as_the_reference_picks_them",
    "a frame without a timestamp": "ts-h264-pts-half-missing ts-h264-pts-repeated",
    "up to 64 packets": "ts-h264-pts-one-astray test_a_few_timestamps_far_from_the_others_are_ignored",
    "one of the last 32 frames": "ts-h264-still-end test_the_timestamp_of_a_still_at_the_end_is_kept",
    "decoding timestamps that go back": "ts-h264-joined ts-h264-jump-inside-38 test_a_wrap_is_a_restart",
    "a gap forward": "ts-h264-gap test_gaps_longer_than_a_second_are_noted",
    "a jump forward of all frames": "ts-h264-joined-much-later test_a_jump_ahead_of_all_frames_is_a_restart",
    "packets that an edit list hides": "mp4-h264-edit-inside mp4-h264-edit-tail",
    "several edits": "mp4-h264-edit-swapped mp4-h264-edit-three mp4-hevc-edit-four",
    "begins inside a frame": "mp4-h264-edit-four mp4-h264-edit-five-again",
    "an empty edit": "mp4-h264-edit-audio-hole",
    "flagged as key frames but are none": "test_packets_wrongly_flagged_as_key_frames_are_not_decoded_alone",
    "frames before the first key frame": "ts-h264-from-inside ts-hevc-from-inside",
    "later frames with timestamps before": (
        "test_later_frames_with_timestamps_before_the_first_frame_are_dropped"
    ),
    "leading frames of an open group": (
        "test_leading_frames_of_an_open_group_at_the_start_are_skipped_with_a_note"
    ),
    "AVI, raw video": "avi-mpeg4-bframes avi-mpeg4-empty-chunks avi-mpeg4-not-coded h264-raw avi-mpeg4-joined",
    "AVI with packed B-frames": "avi-mpeg4-packed avi-mpeg4-packed-dropped",
    "timestamps drift from its sample count": (
        "test_audio_that_overlaps_earlier_audio_is_dropped_and_reported"
    ),
    "audio that drifts by more than": (
        "mp4-h264-audio-hole test_audio_that_overlaps_earlier_audio_is_dropped_and_reported"
    ),
    "joined end to end, of which": (
        "flv-h264-joined caf-alac-joined tta-joined apng-joined"
        " test_joined_audio_of_which_the_first_is_read_is_damage"
        " test_a_joined_avi_that_is_not_interleaved_is_damage"
        " test_joined_recordings_are_not_reported_as_truncated"
    ),
    "more images in a file": "test_the_first_of_joined_images_is_used",
    "Opus or Vorbis": "opus-chained-four test_recordings_chained_in_ogg_begin_where_the_one_before_ends",
    "one field per packet": "ts-h264-fields test_two_fields_are_one_frame",
    "a display orientation in H.264": "mp4-h264-sei-turned test_a_turned_packet_is_found_by_its_message",
    "a display matrix": "mp4-h264-antitransposed test_mirrored_video_is_turned_upright",
    "a header whose duration exceeds": "test_truncated_files_are_read_as_far_as_possible_and_reported",
    "packets that cannot be decoded, frames": (
        "test_strict_refuses_damaged_packets_too"
        " test_audio_that_the_decoder_drops_without_an_error_is_reported"
    ),
    "nothing of one of two streams": (
        "test_a_stream_that_cannot_be_decoded_is_reported_and_the_other_is_used"
        " test_a_stream_without_a_decoder_is_damage_and_missing"
        " test_damage_counts_only_for_the_streams_that_are_used"
    ),
    "beside another of its kind": "test_the_second_audio_stream_is_used_if_only_the_first_has_no_decoder",
    "a header that counts from another origin": "mkv-h264-cut-copyts mkv-h264-subtitles mkv-two-audio",
    "more than the file's length and 60 s apart": "test_clocks_too_far_apart_are_aligned_at_time_zero",
}
"""By words of a row's first cell: functions in tests/media, and combinations that are compared with ffmpeg."""


def rows() -> list[str]:
    """Return the first cell of each row."""
    table = PAGE.read_text(encoding="utf-8").split("| in the file | what is done | reported as |\n")[1]
    lines = table.split("\n\n")[0].splitlines()[1:]
    return [line.split("|")[1].strip() for line in lines]


def test_each_row_has_tests() -> None:
    found = [[words for words in RULES if words in row] for row in rows()]
    assert [row for row, words in zip(rows(), found, strict=True) if len(words) != 1] == []
    assert sorted(words for (words,) in found) == sorted(RULES)


@pytest.mark.parametrize("words", RULES)
def test_the_tests_exist(words: str) -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in HERE.glob("test_*.py"))
    functions = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    assert [name for name in RULES[words].split() if name not in functions | COMBINATIONS.keys()] == []
