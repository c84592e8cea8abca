#!/bin/sh
# Writes the secrets that docker-compose.yml needs into .env, each made here and now. Those that are there stay.
set -eu
umask 077
file=${1:-.env}
touch "$file"
chmod 600 "$file"
# A last line without an end would get the first secret for its own.
[ -z "$(tail -c 1 "$file")" ] || echo >> "$file"
for name in POSTGRES_PASSWORD REDIS_PASSWORD S3_ROOT_PASSWORD S3_PASSWORD OSORA_SECRET_KEY OSORA_INTERNAL_TOKEN; do
    if ! grep -q "^$name=." "$file"; then
        # Hexadecimal: it needs no quoting in a URL.
        echo "$name=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >> "$file"
    fi
done
