"""Makes the Python side of `lp_rpc.proto`, or says whether it is up to date.

    ./dev run python scripts/generate_grpc.py [--check]

protoc's own Python refuses to run on a protobuf that is older than protoc, or two major versions newer; and
it registers its messages where the published peer, `livepeer-gateway` 1.0.0, registers others of the same
names, so that no process could import both. The module made here uses the public API of every protobuf since
4.25, and a descriptor pool of its own. The types are protoc's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "packages/livepeer-client/src/livepeer/client/_grpc"
SOURCE = FOLDER / "lp_rpc.proto"

MODULE = '''\
"""The messages of `lp_rpc.proto`. Made by scripts/generate_grpc.py: edit the .proto, then run that."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = [
{exported}
]

# A pool of its own: another package in the process may have messages of these names, with other fields.
_pool = DescriptorPool()
_pool.AddSerializedFile(
{descriptor}
)
DESCRIPTOR = _pool.FindFileByName("{name}")
_messages = DESCRIPTOR.message_types_by_name

{classes}
'''


def generate() -> dict[Path, str]:
    """The files that belong to the .proto."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as work:
        descriptors = Path(work, "descriptors")
        arguments = (f"-I{FOLDER}", f"--descriptor_set_out={descriptors}", f"--pyi_out={work}", SOURCE.name)
        if protoc.main(["protoc", *arguments]):
            raise SystemExit("protoc refused the .proto; its message is above.")
        stub = next(Path(work).glob("*.pyi"))
        types = stub.read_text().replace("_Mapping]", "_Mapping[str, object]]")  # mypy strict wants to know
        (file,) = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    names = sorted(message.name for message in file.message_type)
    lines = textwrap.wrap(file.SerializeToString().hex(), 100)
    module = MODULE.format(
        name=file.name,
        exported="\n".join(f'    "{name}",' for name in ["DESCRIPTOR", *names]),
        descriptor="\n".join(['    bytes.fromhex("""', *(f"    {line}" for line in lines), '    """)']),
        classes="\n".join(f'{name} = GetMessageClass(_messages["{name}"])' for name in names),
    )
    return {FOLDER / "lp_rpc_pb2.py": module, FOLDER / stub.name: types}


def main() -> int:
    """Write the files, or compare them; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when something would change")
    check = parser.parse_args().check
    changed = [
        (path, text) for path, text in generate().items() if not path.exists() or path.read_text() != text
    ]
    for path, text in changed:
        print(f"{path.name} {'is not what the .proto says' if check else 'written'}")
        if not check:
            path.write_text(text)
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
