"""The paper's evaluations (appendix E): linear, fusion, finetuning, retrieval; their tables, and a gallery."""
