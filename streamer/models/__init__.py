"""Item models: a folder on disk, the pointer that makes one live, and a small trainer."""

from streamer.models.content_id import content_id
from streamer.models.folder import CheckedModel, check_model, load_model, read_manifest
from streamer.models.folder_writer import write_model
from streamer.models.import_arrays import import_arrays, import_frame, import_parquet
from streamer.models.import_implicit import import_implicit
from streamer.models.import_spark import import_spark
from streamer.models.imported import ImportedModel, ImportOptions
from streamer.models.manifest import Manifest, ModelNotes
from streamer.models.pointer import Pointer, decode_pointer, encode_pointer, pointer_key
from streamer.models.publish import publish, read_pointer, roll_back

__all__ = [
    "CheckedModel",
    "ImportOptions",
    "ImportedModel",
    "Manifest",
    "ModelNotes",
    "Pointer",
    "check_model",
    "content_id",
    "decode_pointer",
    "encode_pointer",
    "import_arrays",
    "import_frame",
    "import_implicit",
    "import_parquet",
    "import_spark",
    "load_model",
    "pointer_key",
    "publish",
    "read_manifest",
    "read_pointer",
    "roll_back",
    "write_model",
]
