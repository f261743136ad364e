"""What tables of README and docs must have."""

from __future__ import annotations

from crisscross_zoo import list_weights


def pretraining_of(name: str) -> str:
    """Return the data set and size that weights of this name were pretrained on, of each modality if they differ."""
    entries = [entry for entry in list_weights() if entry.name == name]
    sizes = {entry.modality: entry.pretrained_on.size for entry in entries}
    differ = len(set(sizes.values())) > 1
    text = [f"{size} ({modality})" if differ else size for modality, size in sizes.items()]
    return ", ".join(dict.fromkeys([entries[0].pretrained_on.dataset, *text]))
