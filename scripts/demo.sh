#!/usr/bin/env bash
# The main job from end to end on real recordings: shard, train, tokenize, verify.
# Usage: demo.sh OUTPUT [FOLDER_WITH_AUDIO]
set -euo pipefail
out=$1
audio=${2:-}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
stop() { echo "Error: $*" >&2; exit 1; }

if [ -n "$audio" ]; then
    sources=("$audio")
else
    recordings=$(bash "$(dirname "${BASH_SOURCE[0]}")/recordings.sh") ||
        stop "Pass a folder of recordings: make demo AUDIO=folder"
    sources=("voices=$recordings/fillets-ng-data-nl" "letters=$recordings/klettres-data")
fi

# Remove unfinished jobs of an interrupted demo; training resumes.
for folder in shards tokens; do
    [ -e "$out/$folder/_codectok/summary.json" ] || rm -rf "${out:?}/$folder"
done
mkdir -p "$out"

say "1. Cut recordings into segments of 2 to 10 s: codectok shard"
codectok shard "${sources[@]}" "$out/shards" --shard-seconds 600 ||
    stop "To start over with other recordings, delete $out or name another folder: make demo DEMO=folder"

say "2. Train a nano codec for about 5 minutes: codectok train"
if [ -d "$out/run/codec" ]; then
    echo "$out/run/codec is already trained."
else
    codectok train nano data.shards="$out/shards" output="$out/run" max_minutes=6
fi

say "3. Turn all segments into tokens: codectok tokenize"
codectok tokenize "$out/shards" "$out/tokens" --codec "$out/run/codec"

say "4. Look at the table: codectok inspect"
codectok inspect "$out/tokens"

say "5. Check it, encode some clips again, and turn some back into audio: codectok verify"
rm -rf "$out/listen"
codectok verify "$out/tokens" --codec "$out/run/codec" --reencode 20 --decode 3 --to "$out/listen"

if python -c 'import sys; from codectok.audio.ffmpeg.decoding import is_installed; sys.exit(not is_installed())'; then
    say "6. Read some recordings again with ffmpeg, and compare durations: codectok verify --sources"
    codectok verify "$out/shards" --sources --share 0.2
fi

say "Done. Everything is in $out:"
cat <<TEXT
  shards/   segments in WebDataset tars
  run/      training: codec/ is the codec, tensorboard/ its curves
  tokens/   the token table (Parquet), for pyarrow, datasets, pandas
  listen/   some clips, from tokens back to audio
TEXT
