"""`make bench` or `python -m tests.bench [TOPIC ...] [--quick]`: run benchmark topics and print their figures as JSON."""

import json
import sys

from tests.bench import core, search

TOPICS = {"core": core, "search": search}


def main(argv: list[str]) -> int:
    """Run the named topics (all by default)."""
    quick = "--quick" in argv
    names = [name for name in argv if not name.startswith("--")] or list(TOPICS)
    for name in names:
        topic = TOPICS[name]
        print(json.dumps({name: topic.measure(topic.QUICK if quick else topic.FULL)}, indent=1, ensure_ascii=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
