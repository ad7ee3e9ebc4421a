"""The coverage-guided fuzzer: ``python tests/fuzz/run.py TARGET [options of libFuzzer]``.

`make fuzz` calls it for every target in turn. New inputs that reach new code are kept in a folder
outside the repository; a finding is written beside the corpus, as ``corpus/TARGET/found_HASH``:
mend what it shows, give it a name that says what went wrong, and commit it.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import atheris

with atheris.instrument_imports(include=["streamer"]):
    from fuzz.targets import TARGETS

from fuzz.mutations import dictionary

CORPUS = Path(__file__).with_name("corpus")
LIMITS = ("-timeout=20", "-rss_limit_mb=1500", "-malloc_limit_mb=512", "-max_len=8192")


def main():
    target, *options = sys.argv[1:]
    grown = Path(tempfile.gettempdir(), "streamer-fuzz", target)
    grown.mkdir(parents=True, exist_ok=True)
    words = grown.with_suffix(".dict")
    words.write_text(dictionary())
    found = CORPUS / target / "found_"
    arguments = [f"-dict={words}", f"-artifact_prefix={found}", *LIMITS, *options]
    atheris.Setup([sys.argv[0], str(grown), str(CORPUS / target), *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
