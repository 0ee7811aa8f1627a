#!/bin/sh
# A pipeline between two queues: words come in, capitals go out. Stop it with Ctrl-C and start it again.
#
# A word is acknowledged once `tr` has been given it. To lose nothing even if the second half dies, let one program
# do both, as worker.py does, and send before it acknowledges.
set -eu

windlass queue create words
windlass queue create capitals
printf 'anchor\nrope\nsail\n' | windlass send words -

windlass receive words --all --raw | tr '[:lower:]' '[:upper:]' | windlass send capitals - --ndjson
windlass receive capitals --all
