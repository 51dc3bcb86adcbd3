"""Prepare the model of a run, or the questions of a synthesis, for the Hugging Face hub, and upload them.

Writes the folder to upload, hub/ in RUN: for a run the weights as safetensors, the processor, the tokenizer and a model
card; for a synthesis its questions and a dataset card. Read the card before you publish. --push-to-hub uploads the
folder if this machine has a hub token (`hf auth login`); otherwise nothing is sent.

    mmupt export runs/mmupt_tiny
    mmupt export runs/mmupt_geoqa --push-to-hub me/geoqa-without-labels --private
    mmupt export runs/synthesis/Qwen2.5-VL-7B-Instruct --push-to-hub me/written-questions
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Write the folder, and upload it if --push-to-hub is given and there is a token."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or of a synthesis")
    parser.add_argument("--push-to-hub", metavar="NAME", help="repository to upload to, OWNER/NAME or NAME")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--adapter", action="store_true", help="export only the LoRA adapter, not the merged weights")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write (hub/ of RUN)")
    arguments = parser.parse_args(words)
    if arguments.private and arguments.push_to_hub is None:
        parser.error("--private needs a repository: name it with --push-to-hub")
    from mmupt.publishing import ExportError
    from mmupt.publishing.folder_export import export

    with as_messages(OSError, ValueError):
        exported = export(arguments.run, arguments.output, arguments.push_to_hub, adapter=arguments.adapter)
    print(exported.listing())
    if arguments.push_to_hub is None:
        print("Nothing was uploaded: add --push-to-hub NAME to upload it")
        return
    from httpx import HTTPError

    with as_messages(ExportError, OSError, HTTPError):
        address = exported.upload(private=arguments.private)
    print(
        f"Uploaded to {address}"
        if address
        else "Dry run, nothing was uploaded: this machine has no hub token (`hf auth login`, or HF_TOKEN)"
    )
