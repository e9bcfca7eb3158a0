#!/bin/sh
# make-secrets.sh [DIRECTORY]: makes every password, at random, and the files that hold them.
# Run it once; it never replaces a file, since the servers know the old passwords.
set -eu
umask 077

place=${1:-$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)/secrets}
[ ! -e "$place" ] || {
    printf 'make-secrets: %s is there already; nothing was changed\n' "$place" >&2
    exit 1
}

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

superuser=$(random) owner=$(random) app=$(random) viewer=$(random)
bell=$(random) operator=$(random) admin=$(random)

mkdir -p "$place"
cd "$place"
printf '%s' "$superuser" >postgres_superuser
printf '%s' "$owner" >postgres_owner
printf '%s' "$app" >postgres_app
printf '%s' "$viewer" >postgres_viewer
printf '%s' "$operator" >redis_operator
printf '%s' "$admin" >grafana_admin

# What the bots and the upgrade read as their configuration file.
cat >bot.toml <<TOML
database = "postgresql://tinywindow_app:$app@postgres:5432/tinywindow"
redis = "redis://tinywindow:$bell@redis:6379/0"
TOML
cat >owner.toml <<TOML
database = "postgresql://tinywindow_owner:$owner@postgres:5432/tinywindow"
TOML

# Redis's users. Nobody without a password may do more than ask whether it is there; the bots may
# do what docs/operations.md says that they need, and an operator may set the kill key.
cat >users.acl <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user tinywindow on #$(printf '%s' "$bell" | digest) ~tinywindow:* &tinywindow:* &__keyspace@* -@all +eval +role +type +getrange +set +del +publish +subscribe +unsubscribe +ping +hello +select +info +config|get +scan +get +exists
user operator on #$(printf '%s' "$operator" | digest) ~tinywindow:* resetchannels -@all +set +get +exists +type +pttl +ping
ACL

# The containers' users are not this one. The directory keeps others on this machine out; inside a
# container only the files that it is given are there, and any user of it may read them.
chmod 444 ./*
printf 'make-secrets: wrote %s\n' "$place" >&2
