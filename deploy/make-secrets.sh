#!/bin/sh
# Makes the secrets that docker-compose.yml names, each 32 random bytes in hexadecimal, where they are missing.
# One that is there is never changed: `patients` is the key of the patient hash and must stay for ever.
#
# Usage: deploy/make-secrets.sh [FOLDER]      (deploy/secrets by default)
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# Compose mounts each file as it is, for users that the host does not know: the files are readable by all,
# and the folder keeps everybody else out.
chmod 700 "$folder"

for name in postgres_admin postgres_owner postgres_worker postgres_analyst redis objects webhook patients; do
    file=$folder/$name
    if [ -s "$file" ]; then
        echo "kept $name"
        continue
    fi
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$file.partial"
    chmod 444 "$file.partial"
    mv "$file.partial" "$file"
    echo "made $name"
done
