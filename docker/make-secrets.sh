#!/bin/sh
# Makes docker/secrets once: the password of the database, and the URL that carries it.
set -eu
cd "$(dirname "$0")"
if [ -e secrets/database_url ]; then
    echo "docker/secrets is there already; nothing changed"
    exit
fi
umask 077
mkdir -p secrets
password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf '%s' "$password" >secrets/postgres_password
printf 'postgresql://dermbridge:%s@database:5432/dermbridge' "$password" >secrets/database_url
# The folder keeps other users of this machine out; the containers' unprivileged accounts must read the files in it.
chmod 644 secrets/*
echo "docker/secrets made"
