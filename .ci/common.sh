# Code that all CI jobs share; they source it, in bash, from the root of the clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off UV_NO_PROGRESS=1
ALL="not slow and not cuda and not network" # tests by their marks; without -m, pytest leaves out the integration tests too
export UV_CACHE_DIR=$PWD/.cache/uv # of this clone, so that it is deleted with a job's environment
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

step() { printf '\n=== %d s: %s\n' "$SECONDS" "$*"; }

fail() { printf '%s\n' "$*" >&2; exit 1; }

CLIP=(examples/clip.mp4 --weights demo --modality both --device cpu)
REFERENCE=feats-ci.npz # features of the example clip, from README's environment

# Tests of code that uses a dependency, for the jobs with the lowest and the newest versions.
MEETING=(tests/checkpoints tests/encoders tests/transforms tests/weights tests/extract/test_extractor.py tests/test_features.py tests/test_hubconf.py
    tests/pretrain/test_loss.py tests/pretrain/test_trajectory.py tests/demo/test_run.py)

# Extras that [test] does not include: with [test] alone, their tests are skipped.
MORE="dev docs examples onnx ray remote shards torchcodec"

uv() { # uv is installed by pip into an environment of its own
    [ -x .venv-uv/bin/uv ] || { python3 -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv; }
    .venv-uv/bin/uv "$@"
}

python_of() { # python_of 3.13: prints a working interpreter of that version, or fails
    local found
    for found in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            command -v "$found"
            return
        fi
    done
    uv python find --quiet "$1" 2>/dev/null || { uv python install --quiet "$1" && uv python find --quiet "$1"; } 2>/dev/null
}

reference() { # writes the features to compare with, from README's environment, which .ci/run creates
    [ -x .venv/bin/crisscross-extract ] || fail ".venv does not exist: run .ci/run, or README's first line"
    .venv/bin/crisscross-extract "${CLIP[@]}" --out "$REFERENCE"
}

same_features() { # same_features ENVIRONMENT: compares features of the example clip, bit for bit
    reference
    "$1/bin/crisscross-extract" "${CLIP[@]}" --out "feats-$(basename "$1").npz"
    "$1/bin/python" .ci/same_features.py "$REFERENCE" "feats-$(basename "$1").npz"
}
