#!/usr/bin/env bash
# Downloads recordings of voice acting and spoken letters from two Debian packages, and prints a folder with a subfolder
# for each. Needs no root.
set -euo pipefail
recordings="${XDG_CACHE_HOME:-$HOME/.cache}/codectok/demo-audio"
packages=(fillets-ng-data-nl klettres-data)

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
stop() { echo "Error: $*" >&2; exit 1; }

# A new system has no package lists, and updating them needs root, so the lists are kept next to the recordings.
with_own_lists() {
    local lists="$recordings/lists" options
    mkdir -p "$lists/partial" "$recordings/archives/partial"
    options=(-o "Dir::State::Lists=$lists" -o "Dir::Cache=$recordings/archives" -o "APT::Sandbox::User=$(id -un)")
    apt-get "${options[@]}" update >&2 && apt-get "${options[@]}" download "$1" >&2
}

for package in "${packages[@]}"; do
    [ -d "$recordings/$package" ] && continue
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || stop "There is no apt here to get recordings with."
    say "Getting recordings: Debian package $package"
    rm -rf "$recordings/download"
    mkdir -p "$recordings/download"
    (cd "$recordings/download" && { apt-get download "$package" >&2 2>/dev/null || with_own_lists "$package"; }) ||
        stop "The package $package could not be downloaded."
    dpkg -x "$recordings"/download/*.deb "$recordings/download/unpacked"
    mv "$recordings/download/unpacked" "$recordings/$package"
done
rm -rf "$recordings/download"
echo "$recordings"
