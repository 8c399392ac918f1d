#!/usr/bin/env bash
# The main job from end to end on real recordings: shard, tokenize, verify, decode, listen; and training, if asked for.
# Usage: demo.sh OUTPUT FOLDER_WITH_AUDIO|"" [train]
set -euo pipefail
out=$1
audio=${2:-}
train=${3:-}

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
for folder in shards tokens own-tokens; do
    [ -e "$out/$folder/_codectok/summary.json" ] || rm -rf "${out:?}/$folder"
done
mkdir -p "$out"

start_over="To start over, delete $out or name another folder: make demo DEMO=folder"
# Training takes the shards of the demo, whatever they were made of.
if [ "$train" != train ] || [ ! -e "$out/shards/_codectok/summary.json" ]; then
    say "1. Cut recordings into segments of 2 to 10 s: codectok shard"
    codectok shard "${sources[@]}" "$out/shards" --shard-seconds 600 || stop "$start_over"
fi

if [ "$train" = train ]; then
    say "2. Train a nano codec on them for about 5 minutes: codectok train"
    if [ -d "$out/run/codec" ]; then
        echo "$out/run/codec is already trained."
    else
        codectok train nano data.shards="$out/shards" output="$out/run" max_minutes=6
    fi

    say "3. Turn all segments into tokens with it: codectok tokenize --codec"
    codectok tokenize "$out/shards" "$out/own-tokens" --codec "$out/run/codec"

    say "4. Check the table, encode some clips again, and turn some back into audio: codectok verify"
    rm -rf "${out:?}/own-listen"
    codectok verify "$out/own-tokens" --codec "$out/run/codec" --reencode 20 --decode 3 --to "$out/own-listen"

    say "Done. Besides the shards, there are in $out:"
    cat <<TEXT
  run/         training: codec/ is the codec, tensorboard/ its curves
  own-tokens/  the token table of this codec
  own-listen/  some clips, from tokens back to audio; nano is for trying things out, not for listening
TEXT
    exit
fi

say "2. Turn all segments into tokens: codectok tokenize"
codectok tokenize "$out/shards" "$out/tokens" || stop "$start_over"

say "3. Look at the table: codectok inspect"
codectok inspect "$out/tokens"

say "4. Check it, and encode some clips again: codectok verify"
codectok verify "$out/tokens" --reencode 20

say "5. Turn a clip back into audio: codectok decode"
first=$(python -c 'import sys, codectok; print(next(iter(codectok.open_table(sys.argv[1]))).id)' "$out/tokens")
rm -f "$out/first.wav"
codectok decode "$out/tokens" "$out/first.wav" --id "$first"

say "6. Compare six clips with their originals by ear: codectok listen"
[ -e "$out/listening" ] || codectok listen "$out/listening" --reference "$out/shards" --clips 6 --no-serve

if python -c 'import sys; from codectok.audio.ffmpeg.decoding import is_installed; sys.exit(not is_installed())'; then
    say "7. Read some recordings again with ffmpeg, and compare durations: codectok verify --sources"
    codectok verify "$out/shards" --sources --share 0.05
fi

say "Done. Everything is in $out:"
cat <<TEXT
  shards/     segments in WebDataset tars
  tokens/     the token table (Parquet), for pyarrow, datasets, pandas
  first.wav   a clip, from tokens back to audio
  listening/  a listening test; open it in a browser with: $(command -v codectok) listen $out/listening
Train a codec of your own on these shards, in 5 minutes: make demo-train DEMO=$out
TEXT
