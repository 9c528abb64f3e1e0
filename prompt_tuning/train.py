"""`python -m prompt_tuning.train`, as users of T5X type it; the same as `prompt-tuning train`."""

import sys

from prompt_tuning import huge_pages
from prompt_tuning.cli import main

if __name__ == "__main__":
    huge_pages.restart()
    sys.exit(main(["train", *sys.argv[1:]]))
